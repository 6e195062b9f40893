"""Calculates what a batch over many accelerators costs, from programs compiled for eight of them.

    python -m experiments.benchmarks.shared_batch

Nothing is measured. The record of compiled programs has, for eight devices, the bound R8 of the
micro-steps in examples/s, their g operations between devices, the least time t of an update, and
the S bytes that it sums over the devices in c pieces. More devices with as many examples each run
the same kernels, and a device may get less than a whole microbatch. On D devices, h groups of d
neighbors, the kernels of a batch of B examples then take

    8 B / (D u R8).

The rest is overhead: of every micro-step of at most b examples, and of the update,

    g n L                               operations of a micro-step: gathers of few bytes
    t / u                               kernels of the update
    + 2 (1 - 1/d) S / N                 the sum: among neighbors,
    + 2 (1 - 1/h) (S/d) / I             then between groups
    + 2 c n L                           steps of its pieces

with n steps of time L for a message to reach all devices; N and I from data sheets; u and L
assumed. A batch size pays if the overhead takes less than a tenth of the kernels. A device gets
whole ghost batches.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping

import experiments
from experiments.benchmarks import report
from noisegen.hardware import EFFICIENCY

RECORD = pathlib.Path(experiments.__path__[0]) / "results" / "benchmarks" / "compile"
U = EFFICIENCY[True]  # of the bounds that training reaches; assumed
L = 10e-6  # seconds of each step between devices; assumed
SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Network:
    """Links between accelerators.

    Attributes:
      neighbors: Number d of devices that the fast links join.
      fast: Bytes a second, each way, of a device among its neighbors.
      slow: The same between groups of neighbors.
      steps: Steps n of a message to all devices, by their number.
    """

    neighbors: int
    fast: float
    slow: float
    steps: Mapping[int, int]


NETWORKS = {
    # DGX H100: NVLink in a host, 400 Gbit/s a GPU between hosts. Rings of 8 GPUs, then of hosts.
    "h100:8": Network(8, 450e9, 50e9, {8: 7, 16: 8, 32: 10, 64: 14, 128: 22}),
    # Cloud TPU v5e: 51.2 TB/s for sums over the 256 chips of a pod. A message goes along both sides
    # of 2 x 4, 4 x 4, 4 x 8, 8 x 8 or 16 x 16 chips.
    "v5e:2x4": Network(256, 200e9, 200e9, {8: 4, 16: 6, 32: 10, 64: 14, 256: 30}),
}
# By name: the compiled program, and the examples of a ghost batch.
PROGRAMS = {
    "WRN-16-4, 32 x 32": ("wide_resnet_8_devices", 64),
    "ResNet-50, 224 x 224": ("resnet50_224_8_devices", 256),
}


def sum_seconds(program: Mapping[str, float], num_devices: int, network: Network) -> float:
    """Returns the seconds of the sum of an update over devices."""
    size, pieces = program["summed_bytes_per_update"], program["collectives_per_update"]
    d = min(network.neighbors, num_devices)
    h = num_devices // d
    near = 2 * (1 - 1 / d) * size / network.fast
    far = 2 * (1 - 1 / h) * size / d / network.slow
    return near + far + 2 * pieces * network.steps[num_devices] * L


def least_batch_size(
    program: Mapping[str, float], num_devices: int, network: Network, ghost_size: int = 1
) -> float:
    """Returns the batch size at which all overhead takes a tenth of the kernels of micro-steps.

    Args:
      program: The record of a program that was compiled for eight devices.
      num_devices: Number of devices that share a batch.
      network: Links between them.
      ghost_size: Least number of examples of a device.
    """
    rate = U * program["examples_per_second_at_most"] * num_devices / 8
    of_update = program["seconds_per_update_at_least"] / U
    of_update += sum_seconds(program, num_devices, network)
    of_micro_step = program["collectives"] * network.steps[num_devices] * L
    at_once = program["examples"] * num_devices / 8  # examples of a micro-step
    least = (of_update + of_micro_step) * rate / SHARE
    if least > at_once:
        # Several micro-steps, and the overhead of each must be paid for by its own kernels.
        left = SHARE / rate - of_micro_step / at_once
        least = of_update / left if left > 0 else math.inf
    return max(least, ghost_size * num_devices)


def rows(record: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Returns a row for each network, accelerator and number of them that the record has."""
    table = []
    for name, (program, ghost_size) in PROGRAMS.items():
        for target, network in NETWORKS.items():
            found = record.get(f"{program}/{target}")
            if found is None:
                continue
            update = found["seconds_per_update_at_least"] / U
            for num_devices in network.steps:
                least = least_batch_size(found, num_devices, network, ghost_size)
                row = [
                    name,
                    f"{num_devices} {target.partition(':')[0]}",
                    f"{found['summed_bytes_per_update'] / 1e6:.0f}",
                    f"{1e3 * update:.2f}",
                    f"{1e3 * sum_seconds(found, num_devices, network):.2f}",
                    f"{least:,.0f}",
                    f"{least / num_devices:,.0f}",
                ]
                table.append(tuple(row))
    return table


def main() -> None:
    """Prints the table."""
    header = (
        *("network", "devices", "MB of the sum", "ms of the update", "ms of the sum"),
        *("least batch size that pays", "a device"),
    )
    record = json.loads((RECORD / "budget.json").read_text())
    print(report.table(header, rows(record)), end="")


if __name__ == "__main__":
    main()

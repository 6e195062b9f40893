"""Calculates what a batch over many accelerators costs, from programs compiled for eight of them.

    python -m experiments.benchmarks.shared_batch

Nothing is measured. The compiled programs say how long the micro-steps and the update of eight
devices take at least, and how many bytes an update sums over them in how many pieces, after the
micro-steps and not beside them. They also say how often a micro-step gathers statistics of ghost
batches, which are small. More devices with the same microbatch run the same kernels. D devices, h
groups of d neighbors, then take for an update of B examples

    8 B / (D u R)                       kernels of the micro-steps
    + g B / b (d - 1 + h - 1) L         their g gathers
    + t / u                             kernels of the update
    + 2 (1 - 1/d) S / N                 the sum: among neighbors,
    + 2 (1 - 1/h) (S/d) / I             then between groups
    + 2 c (d - 1 + h - 1) L             steps of its c pieces

with the bound R of the micro-steps of eight devices in examples/s, the b examples of a micro-step
of D devices, the least time t of an update and the bytes S of its sum, all from the record of
compiled programs; N and I from data sheets; u and L assumed. A batch size pays as long as the
update with its sum takes less than a tenth of the micro-steps.
"""

import dataclasses
import json
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
      sizes: Numbers of devices to show.
    """

    neighbors: int
    fast: float
    slow: float
    sizes: tuple[int, ...]


NETWORKS = {
    # DGX H100: NVLink in a host, 400 Gbit/s a GPU between hosts.
    "h100:8": Network(8, 450e9, 50e9, (8, 16, 32, 64, 128)),
    # Cloud TPU v5e: 51.2 TB/s for sums over the 256 chips of a pod. All chips are neighbors in two
    # directions, so a sum goes along the rows of 16, then along the columns.
    "v5e:2x4": Network(16, 200e9, 200e9, (8, 16, 64, 256)),
}
PROGRAMS = {
    "WRN-16-4, 32 x 32": "wide_resnet_8_devices",
    "ResNet-50, 224 x 224": "resnet50_224_8_devices",
}


def sum_seconds(size: float, num_pieces: int, num_devices: int, network: Network) -> float:
    """Returns the seconds of a sum of `size` bytes, in several pieces, over devices."""
    d = min(network.neighbors, num_devices)
    h = num_devices // d
    near = 2 * (1 - 1 / d) * size / network.fast
    far = 2 * (1 - 1 / h) * size / d / network.slow
    return near + far + 2 * num_pieces * _gather_seconds(num_devices, network)


def _gather_seconds(num_devices: int, network: Network) -> float:
    """Returns the seconds of a gather of few bytes, which takes half of the steps of a sum."""
    d = min(network.neighbors, num_devices)
    return (d - 1 + num_devices // d - 1) * L


def least_batch_size(program: Mapping[str, float], num_devices: int, network: Network) -> float:
    """Returns the batch size at which the update with its sum takes a tenth of the micro-steps.

    Args:
      program: The record of a program that was compiled for eight devices.
      num_devices: Number of devices that share a batch.
      network: Links between them.
    """
    examples = program["examples"] * num_devices / 8  # of a micro-step
    kernels = program["examples"] / (U * program["examples_per_second_at_most"])
    micro_step = kernels + program["collectives"] * _gather_seconds(num_devices, network)
    update = program["seconds_per_update_at_least"] / U
    return (update + _sum_seconds_of(program, num_devices, network)) / SHARE / micro_step * examples


def _sum_seconds_of(program: Mapping[str, float], num_devices: int, network: Network) -> float:
    """Returns the seconds of the sum of an update."""
    size, pieces = program["collective_bytes_per_update"], program["collectives_per_update"]
    return sum_seconds(size, pieces, num_devices, network)


def rows(record: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Returns a row for each network, accelerator and number of them that the record has."""
    table = []
    for name, program in PROGRAMS.items():
        for target, network in NETWORKS.items():
            found = record.get(f"{program}/{target}")
            if found is None:
                continue
            size = found["collective_bytes_per_update"]
            for num_devices in network.sizes:
                least = least_batch_size(found, num_devices, network)
                table.append(
                    (
                        *(name, f"{num_devices} {target.partition(':')[0]}", f"{size / 1e6:.0f}"),
                        f"{1e3 * found['seconds_per_update_at_least'] / U:.2f}",
                        f"{1e3 * _sum_seconds_of(found, num_devices, network):.2f}",
                        *(f"{least:,.0f}", f"{least / num_devices:,.0f}"),
                    )
                )
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

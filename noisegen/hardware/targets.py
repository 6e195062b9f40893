"""Accelerators that programs are compiled for, with what their makers publish about them.

>>> from noisegen.hardware import targets
>>> targets.find_target("h100:8").num_devices, targets.find_target("v5e:2x4").num_devices
(8, 8)
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

# Peaks without sparsity, of bfloat16 and of float32 as JAX multiplies it by default: TensorFloat-32
# on a GPU, bfloat16 on a TPU. Bytes a second, and bytes of memory.
_PEAKS = {
    # Data sheets of NVIDIA A100 80GB SXM, H100 SXM and H200 SXM
    "a100": (312e12, 156e12, 2.039e12, 80e9),
    "h100": (989e12, 494e12, 3.35e12, 80e9),
    "h200": (989e12, 494e12, 4.8e12, 141e9),
    # System architecture pages of Cloud TPU v5e and v6e
    "v5e": (197e12, 197e12, 0.819e12, 16e9),
    "v6e": (918e12, 918e12, 1.64e12, 32e9),
}
# Compute capability, multiprocessors, bytes of shared memory of one and at most of a block, bytes
# of L2 cache, clock in GHz, name.
_GPUS = {
    "a100": (8, 108, 167936, 166912, 41943040, 1.41, "NVIDIA A100-SXM4-80GB"),
    "h100": (9, 132, 233472, 232448, 52428800, 1.98, "NVIDIA H100 80GB HBM3"),
    "h200": (9, 132, 233472, 232448, 52428800, 1.98, "NVIDIA H200"),
}
# Clocks of TPUs in Hz, inferred from the peaks: they are not published.
_CLOCKS = {"v5e": 1.5e9, "v6e": 1.75e9}
_NAMES = "a100, h100 and h200, with a number of devices as in h100:8, or v5e:2x2, v6e:2x4 and so on"


@dataclasses.dataclass(frozen=True)
class Target:
    """An accelerator, or several.

    Attributes:
      name: As given to `find_target`.
      chip: Its kind, such as "h100".
      num_devices: Number of devices.
      flops: Peak of bfloat16 products in a second, of one device.
      flops_float32: The same of float32 products at JAX's default precision.
      bandwidth: Bytes that the main memory of a device reads or writes in a second.
      memory: Bytes of main memory of a device.
    """

    name: str
    chip: str
    num_devices: int
    flops: float
    flops_float32: float
    bandwidth: float
    memory: float

    @property
    def is_gpu(self) -> bool:
        """Whether the target is a GPU; if not, it is a TPU."""
        return self.chip in _GPUS

    @property
    def clock(self) -> float | None:
        """Clock cycles in a second of a TPU; None of a GPU, whose compiler counts no cycles."""
        return _CLOCKS.get(self.chip)

    @property
    def compiler_options(self) -> dict[str, str | int]:
        """Options with which to compile for the target."""
        # Autotuning measures kernels on the GPU, which may be absent.
        return {"xla_gpu_autotune_level": 0} if self.is_gpu else {}

    def seconds(self, flops: int, dtype: str, num_bytes: int) -> float:
        """Returns the least time of a kernel: that of its products or that of its traffic."""
        peak = self.flops if dtype in ("bf16", "f16") else self.flops_float32
        return max(flops / peak, num_bytes / self.bandwidth)

    def devices(self) -> Sequence[jax.Device]:
        """Returns descriptions of the devices, which need not exist.

        Raises:
          ValueError: If the compiler of the target is not installed, or does not know it.
        """
        _check_installed(self)
        if self.is_gpu:
            arguments = {
                "platform": "cuda",
                "target_config": _gpu_description(self),
                "topology": f"1x1x{self.num_devices}",
            }
        else:
            # Several processes may compile at once, and the compiler must not look for a real TPU.
            os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
            os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
            os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
            # Any type will do: the topology below is what counts.
            os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
            arguments = {"platform": "tpu", "topology_name": _topology(self)}
        try:
            devices = topologies.get_topology_desc(**arguments).devices
        except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"The compiler of {self.name} does not start. Its version must fit that of jaxlib, "
                f"and a TPU's topology must exist: {reason}"
            ) from error
        if len(devices) < self.num_devices:
            raise ValueError(
                f"{self.name} has no topology of {self.num_devices} chips; name one by its sides, "
                f"such as {self.chip}:2x4."
            )
        return devices[: self.num_devices]


def find_target(name: str) -> Target:
    """Returns the target of a name: "h100", "h100:8", "v5e:2x4", "v6e:1".

    Raises:
      ValueError: If there is no such target.
    """
    match = re.fullmatch(r"(\w+)(?::(\d+(?:x\d+)*))?", name)
    if match is None or match[1] not in _PEAKS:
        raise ValueError(f"There is no target {name!r}; there are {_NAMES}.")
    chip, size = match[1], match[2] or "1"
    sizes = [int(each) for each in size.split("x")]
    if 0 in sizes or (chip in _GPUS and len(sizes) > 1):
        raise ValueError(f"There is no target {name!r}; there are {_NAMES}.")
    return Target(name, chip, math.prod(sizes), *_PEAKS[chip])


def is_installed(target: Target) -> bool:
    """Returns whether the compiler of a target is installed, without loading it."""
    return importlib.util.find_spec(_package(target)) is not None


def install_command(target: Target) -> str:
    """Returns the command that installs the compiler of a target, in the clone of noisegen."""
    extra = "aot-cuda" if target.is_gpu else "aot-tpu"
    return f"pip install '.[{extra}]'"


def _package(target: Target) -> str:
    """Returns the package of the compiler of a target."""
    return "jax_cuda12_plugin" if target.is_gpu else "libtpu"


def _check_installed(target: Target) -> None:
    """Checks that the compiler of a target is installed."""
    package = _package(target).replace("_", "-")
    if not is_installed(target):
        raise ValueError(
            f"Compiling for {target.name} needs the package {package}: run "
            f"`{install_command(target)}` in the clone of noisegen, in an environment of its own."
        )


def _topology(target: Target) -> str:
    """Returns the name of a TPU's topology; the smallest one has four chips."""
    size = target.name.partition(":")[2]
    return target.name if "x" in size else f"{target.chip}:2x2"


def _gpu_description(target: Target) -> str:
    """Returns what XLA's compiler wants to know about a GPU, as a text proto."""
    capability, cores, shared, shared_of_block, cache, clock, description = _GPUS[target.chip]
    accelerated = "    feature_extension: ACCELERATED_FEATURES\n" if capability == 9 else ""
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {128 if capability == 9 else 64}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {target.bandwidth:.0f}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {target.memory:.0f}
  shared_memory_per_block_optin: {shared_of_block}
  cuda_compute_capability {{
    major: {capability}
{accelerated}  }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{description}"
"""

"""Compiles single convolutions for an accelerator: patches against XLA's own operation.

    python -m tests.hardware.convolutions h100

Prints a row for each convolution with its gradients: the gigabytes that it moves either way. The
compilers are extras of noisegen, `aot-cuda` and `aot-tpu`.
"""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from noisegen import hardware
from noisegen.hardware import hlo
from noisegen.models._batch_last import Conv


class Case(NamedTuple):
    """A convolution: its layer, the images, and the networks that a device trains at once."""

    channels: int
    filters: int
    size: int
    padding: int
    pixels: int
    images: int  # of a network
    networks: int = 1
    dtype: str = "float32"


CASES = {
    "LeNet-5, first": Case(1, 6, 5, 2, 28, 1024),
    "LeNet-5, second": Case(6, 16, 5, 0, 14, 1024),
    "Wide-ResNet, first, bfloat16": Case(3, 16, 3, 1, 32, 1024, dtype="bfloat16"),
    "Wide-ResNet, 16 channels, bfloat16": Case(16, 16, 3, 1, 32, 1024, dtype="bfloat16"),
    "LeNet-5, first, 64 networks": Case(1, 6, 5, 2, 28, 64, 64),
    "LeNet-5, second, 64 networks": Case(6, 16, 5, 0, 14, 64, 64),
    "Wide-ResNet, 16 channels, bfloat16, 4 networks": Case(
        16, 16, 3, 1, 32, 256, 4, dtype="bfloat16"
    ),
}


def moved(case: Case, convolution: str, target: hardware.Target) -> int:
    """Returns the bytes that a convolution and its gradients move."""
    dtype = jnp.dtype(case.dtype)

    def make():
        sizes = (case.channels, case.filters, case.size)
        options = {"padding": case.padding, "convolution": convolution, "dtype": dtype}
        return Conv(*sizes, **options, rngs=nnx.Rngs(0))

    graph, shapes = nnx.split(nnx.eval_shape(make))

    def gradients(params, x):
        def total(params, x):
            return jnp.sum(jnp.sin(nnx.merge(graph, params)(x).astype(jnp.float32)))

        # Images have no gradient.
        argnums = 0 if case.channels <= 3 else (0, 1)
        return jax.grad(total, argnums=argnums)(params, x)

    mesh = Mesh(np.asarray(target.devices()[:1]), ("device",))
    sharding = NamedSharding(mesh, PartitionSpec())
    several = case.networks > 1

    def describe(shape, dtype):
        shape = (case.networks, *shape) if several else shape
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    params = jax.tree.map(lambda leaf: describe(leaf.shape, leaf.dtype), shapes)
    x = describe((case.channels, case.pixels, case.pixels, case.images), dtype)
    lowered = jax.jit(jax.vmap(gradients) if several else gradients).lower(params, x)
    text = lowered.compile(compiler_options=target.compiler_options).as_text()
    module = hlo.parse(text)
    return sum(kernel.bytes for kernel in module.kernels(module.entry))


def main() -> None:
    """Prints the rows of a table in Markdown."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    target = hardware.find_target(sys.argv[1])
    print("| convolution | patches, GB | lax, GB |\n| --- | --- | --- |")
    for name, case in CASES.items():
        cells = [f"{moved(case, each, target) / 1e9:.3f}" for each in ("patches", "lax")]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

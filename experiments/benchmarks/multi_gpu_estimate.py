"""Calculates the cost of one run's batch over many GPUs: arithmetic, and the gradient's sum.

    python -m experiments.benchmarks.multi_gpu_estimate

Nothing is measured here. The gradient is summed once an update, whatever the microbatches, in
float32, after the arithmetic and not beside it. One update of batch size B on D = 8 H GPUs of H
hosts takes

    B F / (D u R)                                    arithmetic
    + 2 (7/8) S / N + 2 (1 - 1/H) (S/8) / I          the sum: in the host, then between hosts
    + (14 + 2 (H - 1)) L                             its steps

with F operations for the gradient of an example and S bytes of gradient, both counted from the
networks; R, N and I from the data sheet of DGX H100; u and L assumed. A batch size pays as long as
the sum takes less than a tenth of the arithmetic.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.benchmarks import report
from noisegen import models

R = 989e12  # operations a second: bfloat16, dense
N = 450e9  # bytes a second each way between the GPUs of a host
I = 50e9  # noqa: E741, likewise between hosts: 400 Gbit/s for each GPU
U = 0.3  # of R that training reaches; assumed
L = 10e-6  # seconds of each step of a sum; assumed
HOSTS = (1, 2, 4, 8, 16)
NETWORKS = {
    "WRN-16-4, 32 x 32": (lambda rngs: models.WideResNet(16, 4, rngs=rngs), 32),
    "ResNet-50, 224 x 224": (lambda rngs: models.ResNet50(rngs=rngs), 224),
}


def gradient_size(make_model, pixels: int) -> tuple[float, float]:
    """Operations of an example's gradient (thrice those of the loss), and its bytes."""
    model = nnx.eval_shape(lambda: make_model(nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def logits(params, rest, image):
        network = nnx.merge(graph, params, rest)
        network.eval()
        return network(image)

    image = jax.ShapeDtypeStruct((1, pixels, pixels, 3), jnp.float32)
    cost = jax.jit(logits).lower(params, rest, image).cost_analysis()
    return 3 * cost["flops"], 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


def seconds(batch_size: float, operations: float, size: float, hosts: int) -> tuple[float, float]:
    """Returns the seconds of an update's arithmetic, and of its sum."""
    arithmetic = batch_size * operations / (8 * hosts * U * R)
    between = 2 * (1 - 1 / hosts) * size / 8 / I
    return arithmetic, 2 * 7 / 8 * size / N + between + (14 + 2 * (hosts - 1)) * L


def least_batch_size(operations: float, size: float, hosts: int, share: float = 0.1) -> float:
    """Returns the batch size at which the sum takes this share of the arithmetic's time."""
    one, total = seconds(1.0, operations, size, hosts)
    return total / (share * one)


def main() -> None:
    """Prints the table."""
    lines = []
    for name, network in NETWORKS.items():
        operations, size = gradient_size(*network)
        for hosts in HOSTS:
            _, total = seconds(1.0, operations, size, hosts)
            least = least_batch_size(operations, size, hosts)
            lines.append(
                (
                    *(name, f"{operations / 1e9:.2f}", f"{size / 1e6:.0f}", f"{8 * hosts}"),
                    *(f"{1e3 * total:.2f}", f"{least:,.0f}", f"{least / 8 / hosts:,.0f}"),
                )
            )
    header = (
        *("network", "10^9 operations an example", "MB of gradient", "GPUs"),
        *("ms of the sum", "least batch size that pays", "a GPU"),
    )
    print(report.table(header, lines), end="")


if __name__ == "__main__":
    main()

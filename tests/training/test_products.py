"""Products are counted as in closed forms."""

import jax
import jax.numpy as jnp
import pytest

from noisegen.training import products


def count(function, *shapes, dtype=jnp.float32):
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return products.count_products(jax.jit(function).trace(*arguments))


def scanned(w, x):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]


def looped(w, x):
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)


def branched(w, x):
    return jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: (x @ w) @ w)


@pytest.mark.parametrize(
    "function, flops",
    [
        (lambda w, x: x @ w, 1),
        (lambda w, x: jnp.tanh(x) + w.sum(), 0),
        (scanned, 7),
        (jax.checkpoint(scanned), 7),
        (looped, 1),
        (branched, 2),
        (jax.vmap(lambda w, x: w @ x), 1 / 8),  # each of 8 products of (8,) and (8,)
        # Of the forward pass, of the gradient of w, and of that of x in all steps but the first.
        (jax.grad(lambda w, x: scanned(w, x).sum()), 7 + 7 + 7),
    ],
)
def test_matrix_products(function, flops):
    found = count(function, (8, 8), (8, 8))
    assert found.get("f32", 0) == pytest.approx(flops * 2 * 8**3)


def test_each_type_is_counted_by_itself():
    def both(x):
        return (x @ x.T).astype(jnp.float32) @ jnp.ones((4, 2))

    assert count(both, (4, 3), dtype=jnp.bfloat16) == {"bf16": 2 * 4 * 4 * 3, "f32": 2 * 4 * 4 * 2}


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 4)])
def test_convolutions_and_their_gradients(stride, groups):
    """A batch of 5 images of 8 x 8 x 4, a kernel of 3 x 3 to 12 channels."""

    def convolve(kernel, images):
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    shapes = (3, 3, 4 // groups, 12), (5, 8, 8, 4)
    forward = 2 * 5 * (8 // stride) ** 2 * 12 * 9 * 4 // groups
    assert count(convolve, *shapes) == {"f32": forward}

    def loss(kernel, images):
        return (convolve(kernel, images) ** 2).sum()

    assert count(jax.grad(loss, (0, 1)), *shapes) == {"f32": 3 * forward}

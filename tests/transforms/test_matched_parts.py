"""Tests matched noise on part of the parameters: variances equal those without a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import noisegen
from noisegen import diagnostics
from noisegen.transforms.matched_noise import COVARIANCES

BATCH, REFERENCE = 16, 4
LACKING = 1 / REFERENCE - 1 / BATCH
PARAMS = {
    "body": {"b": jnp.zeros(3000), "w": jnp.zeros((100, 30))},
    "head": {"b": jnp.zeros(4000), "w": jnp.zeros((100, 60))},
}
SIZE = 16_000
# Each leaf has a variance of its own.
VARIANCES = {"body": {"b": 1.0, "w": 2.0}, "head": {"b": 3.0, "w": 4.0}}
DIAGONAL = jax.tree.map(lambda v, p: jnp.full(p.shape, v), VARIANCES, PARAMS)
NOISE = diagnostics.GradientNoise(
    trace=float(sum(leaf.sum() for leaf in jax.tree.leaves(DIAGONAL))),
    squared_norm=1.0,
    diagonal=DIAGONAL,
)
HEAD = {"body": {"b": False, "w": False}, "head": {"b": True, "w": True}}
MASKS = {  # of the head, but for "nested", which is of its weights alone
    "leaves": HEAD,
    "prefix": {"body": False, "head": True},
    "callable": lambda tree: jax.tree.map(lambda _: True, tree) | {"body": False},
    "all": True,
    "none": False,
}
every_covariance = pytest.mark.parametrize("covariance", COVARIANCES)


def matched(covariance, seed=0):
    return noisegen.matched_noise(REFERENCE, jax.random.key(seed), covariance=covariance)


def updated(tx, noise=NOISE, updates=PARAMS):
    updates, _ = jax.jit(tx.update)(
        updates, tx.init(updates), batch_size=BATCH, gradient_noise=noise
    )
    return updates


def expected(covariance, isotropic=NOISE.trace / SIZE):
    return jax.tree.map(lambda v: v if covariance == "diagonal" else isotropic, VARIANCES)


def assert_variances(updates, right, labels=HEAD):
    """Compares variances, whose standard error over 3000 draws is 2.6 %."""
    for update, variance, noisy in zip(
        *map(jax.tree.leaves, (updates, right, labels)), strict=True
    ):
        assert float(jnp.var(update)) == pytest.approx(LACKING * variance * noisy, rel=0.12)


@pytest.mark.slow
@every_covariance
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_mask_leaves_the_variances_of_the_rest_as_they_are(covariance, mask):
    labels = HEAD if mask not in (True, False) else jax.tree.map(lambda _: mask, HEAD)
    tx = optax.masked(matched(covariance), mask)
    assert_variances(updated(tx), expected(covariance), labels)


@every_covariance
def test_a_masked_leaf_has_the_noise_that_it_has_without_the_mask(covariance):
    whole = updated(matched(covariance))["head"]
    for mask in ("leaves", "callable"):
        part = updated(optax.masked(matched(covariance), HEAD))["head"]
        for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(a, b), mask


@pytest.mark.slow
@every_covariance
@pytest.mark.parametrize("combine", [optax.partition, optax.multi_transform])
@pytest.mark.parametrize("prefix", [False, True])
def test_groups_together_have_the_trace_of_the_whole(covariance, combine, prefix):
    labels = {"body": "x", "head": "y"}
    if not prefix:
        labels = jax.tree.map(lambda noisy: "y" if noisy else "x", HEAD)
    groups = {
        "x": matched(covariance, 1),
        "y": matched(covariance, 2),
        "nothing": matched("diagonal"),
    }
    updates = updated(combine(groups, labels))
    everywhere = jax.tree.map(lambda _: True, HEAD)
    assert_variances(updates, expected(covariance), everywhere)
    trace = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(updates))
    assert trace == pytest.approx(LACKING * NOISE.trace, rel=0.05)


@every_covariance
def test_nested_masks_and_frozen_parameters(covariance):
    inner = optax.masked(
        matched(covariance), lambda tree: jax.tree.map(lambda p: p.ndim == 2, tree)
    )
    tx = optax.chain(optax.masked(inner, MASKS["prefix"]), optax.scale(2.0))
    only_weights = {"body": {"b": False, "w": False}, "head": {"b": False, "w": True}}
    right = jax.tree.map(lambda v: 4 * v, expected(covariance))
    assert_variances(updated(tx), right, only_weights)
    frozen = optax.partition(
        {"train": matched(covariance), "freeze": optax.set_to_zero()},
        {"body": "freeze", "head": "train"},
    )
    assert_variances(updated(frozen), expected(covariance))


@every_covariance
def test_inside_multi_steps(covariance):
    tx = optax.MultiSteps(optax.masked(matched(covariance), HEAD), every_k_schedule=2)
    state = tx.init(PARAMS)
    for _ in range(2):
        updates, state = tx.update(PARAMS, state, batch_size=BATCH, gradient_noise=NOISE)
    assert_variances(updates, expected(covariance))


@every_covariance
def test_parameters_left_out_as_none(covariance):
    updates = PARAMS | {"body": None}
    found = updated(matched(covariance), updates=updates)
    assert found["body"] is None
    assert_variances(found["head"], expected(covariance)["head"], HEAD["head"])


def test_a_part_taken_out_by_hand_has_its_share_of_the_trace():
    found = updated(matched("isotropic"), updates=PARAMS["head"])
    assert_variances(found, expected("isotropic")["head"], HEAD["head"])


def test_without_a_diagonal_the_trace_of_a_part_is_unknown():
    noise = NOISE._replace(diagonal=())
    assert_variances(updated(matched("isotropic"), noise), expected("isotropic"), 4 * [True])
    for unknown in (noise, diagnostics.RunningNoise(NOISE.trace, 1.0, 1)):
        with pytest.raises(
            ValueError, match="diagonal is missing.*updates are masked.*Give the whole"
        ):
            updated(optax.masked(matched("isotropic"), HEAD), unknown)
    with pytest.raises(ValueError, match="measured on 10000 coordinates, fewer than the 16000"):
        updated(matched("isotropic"), NOISE._replace(diagonal=DIAGONAL["head"]))


@every_covariance
def test_noise_that_was_not_measured_does_no_harm_where_none_is_lacking(covariance):
    unknown = jax.tree.map(lambda leaf: jnp.nan * leaf, NOISE)
    tx = noisegen.matched_noise(BATCH, jax.random.key(0), covariance=covariance)
    for a, b in zip(*map(jax.tree.leaves, (updated(tx, unknown), PARAMS)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(
        jnp.isnan(leaf).all() for leaf in jax.tree.leaves(updated(matched(covariance), unknown))
    )


def test_more_coordinates_than_an_int32_counts():
    huge = jax.ShapeDtypeStruct((3, 2**30), jnp.float32)

    def update(updates, diagonal):
        tx, noise = matched("isotropic"), diagnostics.GradientNoise(1.0, 1.0, diagonal)
        return tx.update(updates, tx.init(None), batch_size=BATCH, gradient_noise=noise)[0]

    assert jax.eval_shape(update, huge, huge).shape == (3, 2**30)
    sphere = jax.eval_shape(lambda tree: noisegen.sphere_noise(jax.random.key(0), tree), huge)
    assert sphere.shape == (3, 2**30)

"""Tests residual networks: published sizes, SkipInit, ghost batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from noisegen import models

IMAGES = np.random.RandomState(0).randn(8, 8, 8, 3).astype(np.float32)


def num_parameters(make):
    params = nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda rngs: models.WideResNet(16, 4, rngs=rngs), 2_748_890),
        (lambda rngs: models.WideResNet(28, 10, 100, rngs=rngs), 36_536_884),
        (lambda rngs: models.WideResNet(16, 4, ghost_size=None, rngs=rngs), 2_747_536),
        (lambda rngs: models.ResNet18(rngs=rngs), 11_173_962),
        (lambda rngs: models.ResNet50(rngs=rngs), 25_557_032),
    ],
    ids=[
        "WRN-16-4",
        "WRN-28-10 of 100 classes",
        "WRN-16-4 with SkipInit",
        "ResNet-18",
        "ResNet-50",
    ],
)
def test_number_of_parameters_is_the_published_one(make, expected):
    assert num_parameters(make) == expected


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "make, shape, classes",
    [
        pytest.param(models.WideResNet, (64, 32, 32, 3), 10, id="WRN-16-4"),
        pytest.param(functools.partial(models.ResNet18, 7), (64, 32, 32, 3), 7, id="ResNet-18"),
        pytest.param(
            functools.partial(models.ResNet50, ghost_size=2),
            (2, 224, 224, 3),
            1000,
            id="ResNet-50",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_shapes_and_dtypes(make, shape, classes, dtype):
    def outputs():
        model = make(dtype=dtype, rngs=nnx.Rngs(0))
        return model(jnp.zeros(shape, dtype)), nnx.state(model)

    logits, state = jax.eval_shape(outputs)
    assert (logits.shape, logits.dtype) == ((shape[0], classes), jnp.float32)
    floating = [a.dtype for a in jax.tree.leaves(state) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert set(floating) == {jnp.dtype(jnp.float32)}


def small(ghost_size, **options):
    return models.WideResNet(10, 1, ghost_size=ghost_size, rngs=nnx.Rngs(0), **options)


@pytest.mark.slow
def test_skipinit_begins_as_its_skips():
    """Expects a network of stem, shortcuts and logits, since every gain starts at 0."""
    model = small(None)
    x = model.stem(IMAGES.transpose(3, 1, 2, 0))
    for block in model.blocks:
        x = x if block.shortcut is None else block.shortcut(jax.nn.relu(x))
    expected = model.logits(jax.nn.relu(x).mean((1, 2)).T)
    np.testing.assert_allclose(model(IMAGES), expected, rtol=1e-5, atol=1e-5)
    gains = [block.gain[...] for block in model.blocks]
    assert [(gain.shape, float(gain)) for gain in gains] == [((), 0.0)] * 3


def test_skipinit_adds_the_gained_branch():
    model = small(None)
    block = model.blocks[0]
    block.gain[...] = jnp.float32(0.5)
    x = model.stem(IMAGES.transpose(3, 1, 2, 0))
    branch = block.conv2(jax.nn.relu(block.conv1(jax.nn.relu(x))))
    np.testing.assert_allclose(block(x, None), x + 0.5 * branch, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_ghost_batches_do_not_see_each_other():
    model = small(4)
    changed = np.concatenate([IMAGES[:4], 3 * IMAGES[4:]])
    np.testing.assert_allclose(model(IMAGES)[:4], model(changed)[:4], rtol=1e-5, atol=1e-5)
    whole = small(8)
    assert not np.allclose(whole(IMAGES)[:4], whole(changed)[:4], rtol=1e-2)


@pytest.mark.slow
def test_evaluation_looks_at_one_image_at_a_time():
    model = small(4, dropout=0.5)
    model(IMAGES)
    model.eval()
    alone = [model(IMAGES[i : i + 1]) for i in range(8)]
    np.testing.assert_allclose(model(IMAGES), np.concatenate(alone), rtol=1e-4, atol=1e-4)


def test_dropout_follows_the_keys():
    model = small(None, dropout=0.5)
    keys = jax.random.split(jax.random.key(0), 8)
    one, same, other = (model(IMAGES, k) for k in (keys, jax.random.clone(keys), keys[::-1]))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("depth, width", [(12, 1), (4, 1), (16, 0)])
def test_sizes_that_do_not_exist_are_refused(depth, width):
    with pytest.raises(ValueError, match="depth 6 n"):
        models.WideResNet(depth, width, rngs=nnx.Rngs(0))


def small_resnet18(ghost_size=8):
    return models.ResNet18(width=4, stages=(1,), ghost_size=ghost_size, rngs=nnx.Rngs(0))


def test_resnet18_halves_the_images_three_times_and_widens_eightfold():
    model = nnx.eval_shape(lambda: models.ResNet18(width=4, rngs=nnx.Rngs(0)))
    kernels = [block.conv1.kernel.shape[:2] for block in model.blocks]
    assert kernels == [(4, 4), (4, 4), (8, 4), (8, 8), (16, 8), (16, 16), (32, 16), (32, 32)]
    assert [block.conv1.stride for block in model.blocks] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert [block.shortcut is not None for block in model.blocks] == 2 * [False] + 3 * [True, False]


def test_resnet18_starts_as_pytorch_does():
    """Expects uniform kernels of deviation 1 / sqrt(3 fan in); He's is 2.4 times larger."""
    model = models.ResNet18(width=64, stages=(1,), rngs=nnx.Rngs(0))
    kernel = np.asarray(model.blocks[0].conv1.kernel[...])
    assert abs(kernel).max() <= 1 / 24  # fan in 64 * 9
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(3 * 576), rtol=0.02)
    assert 0.9 / 8 < abs(np.asarray(model.logits.kernel[...])).max() <= 1 / 8  # fan in 64


def test_batch_normalization_of_a_ragged_batch_is_that_of_its_examples():
    """Expects examples outside the mask to leave no trace in a single ghost batch."""
    model, alone = small_resnet18(), small_resnet18()
    mask = np.arange(8) < 5
    images = np.where(mask[:, None, None, None], IMAGES, 100.0).astype(np.float32)
    call = nnx.jit(lambda model, images, mask=None: model(images, mask=mask))
    ragged, expected = call(model, images, mask)[:5], call(alone, IMAGES[:5])
    np.testing.assert_allclose(ragged, expected, rtol=1e-4, atol=1e-5)
    of_one, of_other = (jax.tree.leaves(nnx.state(m, nnx.BatchStat)) for m in (model, alone))
    for one, other in zip(of_one, of_other, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not np.allclose(
        call(small_resnet18(), images)[:5], expected, rtol=1e-2
    )  # without the mask


def test_a_width_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="width"):
        models.ResNet18(width=0, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_kernels_start_from_he_and_logits_from_lecun():
    params = nnx.state(models.WideResNet(10, 8, rngs=nnx.Rngs(0)), nnx.Param)
    flat = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(params)}
    [logits] = [w for name, w in flat.items() if "logits" in name and w.ndim == 2]
    assert float(jnp.std(logits)) == pytest.approx((1 / 512) ** 0.5, rel=0.1)
    largest = max((w for w in flat.values() if w.ndim == 4), key=lambda w: w.size)
    fan_in = largest.size // 512
    assert float(jnp.std(largest)) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)

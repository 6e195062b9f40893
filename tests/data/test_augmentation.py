"""Tests crops and flips: every outcome against NumPy, distributions, purity."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from noisegen import data
from noisegen.data import augmentation

HEIGHT, WIDTH, PADDING = 6, 7, 2
IMAGE = np.arange(HEIGHT * WIDTH * 2, dtype=np.uint8).reshape(HEIGHT, WIDTH, 2)
NUM_OUTCOMES = 2 * (2 * PADDING + 1) ** 2


def reference_outcomes(image, padding, mode):
    """Returns {bytes of the result: index}, for every offset without and with a flip."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode)
    outcomes = []
    offsets = range(2 * padding + 1)
    for row, column, flip in itertools.product(offsets, offsets, (False, True)):
        cropped = padded[row : row + image.shape[0], column : column + image.shape[1]]
        outcomes.append(np.ascontiguousarray(cropped[:, ::-1] if flip else cropped).tobytes())
    return {outcome: index for index, outcome in enumerate(outcomes)}


def outcome_counts(num_draws, mode, **kwargs):
    keys = jax.random.split(jax.random.key(7), num_draws)
    augment = jax.jit(
        jax.vmap(lambda key: data.pad_crop_flip(key, IMAGE, padding=PADDING, mode=mode, **kwargs))
    )
    index_of = reference_outcomes(IMAGE, PADDING, mode)
    indices = [index_of[out.tobytes()] for out in np.asarray(augment(keys))]
    return np.bincount(indices, minlength=NUM_OUTCOMES)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_all_outcomes_of_the_reference_are_equally_likely(mode):
    counts = outcome_counts(100 * NUM_OUTCOMES, mode)  # KeyError for any other outcome.
    # 100 expected draws a cell: an outcome that is 1.5 times too likely gives p < 1e-4.
    assert stats.chisquare(counts).pvalue > 1e-3


def test_negative_control_of_the_uniformity_test():
    counts = outcome_counts(100 * NUM_OUTCOMES, "reflect", flip=False)
    assert stats.chisquare(counts).pvalue < 1e-6


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_the_window_of_tpus_is_that_of_other_devices(padding):
    image = np.arange(5 * 6 * 2, dtype=np.uint8).reshape(5, 6, 2)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    places = np.array(list(itertools.product(range(2 * padding + 1), repeat=2)))
    windows = [
        jax.vmap(functools.partial(window, padded, shape=image.shape))(places[:, 0], places[:, 1])
        for window in (augmentation._window, augmentation._window_by_selection)
    ]
    np.testing.assert_array_equal(*windows)


def test_on_tpus_a_batch_is_cropped_without_a_gather():
    images, keys = np.zeros((4, 8, 8, 1), np.uint8), jax.random.split(jax.random.key(0), 4)
    traced = jax.jit(jax.vmap(data.pad_crop_flip)).trace(keys, images)
    texts = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cuda", "tpu")
    }
    assert "gather" in texts["cuda"] and "gather" not in texts["tpu"]


def test_without_flip_no_outcome_is_mirrored():
    counts = outcome_counts(50 * NUM_OUTCOMES, "reflect", flip=False)
    assert (counts[0::2] > 0).all() and (counts[1::2] == 0).all()


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
@jax.debug_key_reuse(False)  # Equal keys are the point here.
def test_dtype_is_kept_and_does_not_change_the_outcome(dtype):
    key = jax.random.key(1)
    out = data.pad_crop_flip(key, IMAGE.astype(dtype))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out.astype(jnp.uint8), data.pad_crop_flip(key, IMAGE))


def test_no_padding_and_no_flip_is_the_identity():
    out = data.pad_crop_flip(jax.random.key(0), IMAGE, padding=0, flip=False)
    np.testing.assert_array_equal(out, IMAGE)


@jax.debug_key_reuse(False)  # Equal keys are the point here.
def test_an_example_depends_on_its_key_and_not_on_its_group():
    keys = jax.random.split(jax.random.key(3), 12)
    images = np.stack([IMAGE + i for i in range(12)])
    augment = jax.jit(jax.vmap(data.pad_crop_flip))
    whole = np.asarray(augment(keys, images))
    for size in (1, 3, 4):
        groups = [augment(keys[i : i + size], images[i : i + size]) for i in range(0, 12, size)]
        np.testing.assert_array_equal(np.concatenate(groups), whole)
    order = np.random.RandomState(0).permutation(12)
    np.testing.assert_array_equal(augment(keys[order], images[order]), whole[order])
    one_by_one = [data.pad_crop_flip(k, x) for k, x in zip(keys, images, strict=True)]
    np.testing.assert_array_equal(one_by_one, whole)


def test_examples_with_distinct_keys_are_augmented_differently():
    keys = jax.random.split(jax.random.key(3), 32)
    out = jax.vmap(lambda key: data.pad_crop_flip(key, IMAGE))(keys)
    assert len({image.tobytes() for image in np.asarray(out)}) > 16


def test_compiles_once():
    augment = jax.jit(jax.vmap(data.pad_crop_flip))
    for seed in (0, 1):
        augment(jax.random.split(jax.random.key(seed), 2), np.stack([IMAGE, IMAGE]))
    assert augment._cache_size() == 1


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": -1, "mode": "constant"}, "padding must be at least 0, got -1"),
        ({"padding": 6}, r"at most 5 \('reflect', image of shape \(6, 7, 2\)\), got 6"),
        ({"mode": "wrap"}, "'reflect' or 'constant', got 'wrap'"),
        ({"image_HxWxC": IMAGE[None]}, r"got shape \(1, 6, 7, 2\).*vmap"),
    ],
)
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        data.pad_crop_flip(**{"key": jax.random.key(0), "image_HxWxC": IMAGE, **kwargs})


def rectangles(num_draws, shape=(40, 50), pixels=64, **options):
    """Reads tops, lefts, heights, widths and mirrorings off random crops of a ramp.

    Linear interpolation keeps a ramp a ramp, except at the edges of the image.
    """
    ramp = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), -1) + 0.5
    keys = jax.random.split(jax.random.key(3), num_draws)
    crop = jax.jit(jax.vmap(lambda key: data.random_resized_crop(key, ramp, pixels, **options)))
    middle = np.asarray(crop(keys))[:, 4:-4, 4:-4]
    places = np.arange(4.5, pixels - 4)
    found = []
    for values in (middle[:, :, 0, 0], middle[:, 0, :, 1]):
        slope = (values[:, -1] - values[:, 0]) / (places[-1] - places[0])
        np.testing.assert_allclose(
            np.diff(values), np.repeat(slope[:, None], len(places) - 1, 1), atol=1e-3
        )
        found.append((values[:, 0] - slope * places[0], slope * pixels))
    (top, height), (left, width) = found
    mirrored = width < 0
    return top, np.where(mirrored, left + width, left), height, abs(width), mirrored


def test_random_resized_crops_have_the_areas_ratios_and_places_of_the_definition():
    options = {"area": (0.1, 0.4), "ratio": (0.5, 2.0)}
    top, left, height, width, mirrored = rectangles(2000, **options)
    area, ratio = height * width / 2000, np.log(width / height) / np.log(2)
    room = (top / (40 - height), left / (50 - width), (area - 0.1) / 0.3, (ratio + 1) / 2)
    for uniform in room:
        assert uniform.min() > -1e-3 and uniform.max() < 1 + 1e-3
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(area**0.5, "uniform").pvalue < 1e-6  # a negative control
    assert 0.45 < mirrored.mean() < 0.55
    assert not rectangles(50, flip=False, **options)[-1].any()


def test_a_crop_is_no_larger_than_the_image():
    _, _, height, width, _ = rectangles(500, area=(1.0, 1.0), ratio=(0.5, 2.0))
    assert height.max() < 40 + 1e-2 and width.max() < 50 + 1e-2
    assert (height > 40 - 1e-2).any() and (width > 50 - 1e-2).any()


def test_the_whole_image_at_its_own_size_is_the_image():
    image = IMAGE[:, :6]
    np.testing.assert_allclose(
        data.random_resized_crop(
            jax.random.key(0), image, 6, area=(1.0, 1.0), ratio=(1.0, 1.0), flip=False
        ),
        image,
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (IMAGE[0], {}, r"one image of shape \(H, W, C\)"),
        (IMAGE, {"pixels": 0}, "pixels=0"),
        (IMAGE, {"area": (0.0, 1.0)}, "area must be a range"),
        (IMAGE, {"area": (0.5, 1.5)}, "area must be a range"),
        (IMAGE, {"ratio": (2.0, 1.0)}, "ratio one of positive numbers"),
    ],
)
def test_random_resized_crop_refuses(image, options, message):
    with pytest.raises(ValueError, match=message):
        data.random_resized_crop(jax.random.key(0), image, **{"pixels": 4} | options)

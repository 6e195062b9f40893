"""Tests data sets from a user's own arrays."""

import numpy as np
import optax
import pytest

from noisegen import data, models, tasks, training

RANDOM = np.random.RandomState(0)
BYTES = RANDOM.randint(0, 256, (30, 4, 4, 2)).astype(np.uint8)
LABEL = np.arange(30) % 3
STANDARD = RANDOM.normal(size=(30, 2, 2, 1))


def made(image=BYTES, label=LABEL, **options):
    split = {"image": image, "label": label}
    return data.from_arrays("mine", split, options.pop("test", split), **options)


def test_bytes_are_taken_as_they_are():
    mine = made(valid={"image": BYTES[:5], "label": LABEL[:5]})
    assert np.shares_memory(mine.train["image"], BYTES)
    assert BYTES.flags.writeable and not mine.train["image"].flags.writeable
    assert mine.train["label"].dtype == np.int32 and mine.train["label"].tolist() == LABEL.tolist()
    assert mine.num_classes == 3 and len(mine.valid["label"]) == 5
    pixels = BYTES.reshape(-1, 2) / 255
    np.testing.assert_allclose(mine.mean, pixels.mean(0))
    np.testing.assert_allclose(mine.std, pixels.std(0))
    assert mine.description == (
        "mine: 30 training, 5 validation and 30 test images of 4 x 4 x 2, given as arrays"
    )


def test_the_same_images_as_floats_are_the_same_data_set_but_for_the_type():
    mine, floats = made(), made(BYTES / 255)
    assert floats.train["image"].dtype == np.float32
    np.testing.assert_allclose(floats.train["image"], BYTES, rtol=1e-6)
    np.testing.assert_allclose((*floats.mean, *floats.std), (*mine.mean, *mine.std), rtol=1e-6)
    assert floats.fingerprint != mine.fingerprint == made(BYTES.astype(np.int64)).fingerprint


def test_the_fingerprint_follows_from_the_arrays():
    prints = [made().fingerprint, made(label=LABEL[::-1].copy()).fingerprint]
    prints += [made(valid={"image": BYTES, "label": LABEL}).fingerprint, made(255 - BYTES)]
    assert len(set(map(str, prints))) == 4


def test_a_constant_channel_becomes_zero():
    constant = BYTES.copy()
    constant[..., 1] = 255
    assert made(constant).std[1] == 1 and made(constant).mean[1] == 1


@pytest.mark.slow
def test_standardized_floats_are_classified():
    mine = made(STANDARD)
    task = tasks.image_classification(
        mine,
        lambda rngs: models.MLP(4, (8,), 3, rngs=rngs),
        lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        name="MLP",
    )
    run = {"batch_size": 10, "learning_rate": 0.5, "num_updates": 30, "seed": 0}
    [result] = training.Pool(task, training.PoolConfig(microbatch=10)).train([run])
    assert result.metrics["test_loss"] < np.log(3)


def test_standardized_floats_are_no_gray_levels():
    mine = made(STANDARD)
    with pytest.raises(ValueError, match="images of mine reach from -.* scale the images"):
        tasks.autoencoding(mine, None, None, name="mine")
    with pytest.raises(ValueError, match="images of mine are floats"):
        data.subsample_and_downscale(mine, 5, 5, 1)


WRONG = {
    r"train must be a dict .* but it is \['image'\]": {"image": BYTES},
    r"train must be a dict .* an array of shape \(30, 4, 4, 2\)": BYTES,
    r"train\['image'\] must have the shape .* gray images write image": (BYTES[..., 0], LABEL),
    r"train\['image'\] must be one array, but its items differ in shape": ([[0], [0, 1]], LABEL),
    r"train\['image'\] is empty": (BYTES[:0], LABEL),
    r"train\['image'\] has NaN or infinity in example 7": (
        np.where(np.arange(30)[:, None, None, None] == 7, np.nan, BYTES),
        LABEL,
    ),
    r"train\['image'\] must have whole numbers or floats, not bool": (BYTES > 7, LABEL),
    r"whole numbers from 0 to 51\d, but they must be from 0 to 255": (2 * BYTES.astype(int), LABEL),
    r"train has 30 images and 29 labels": (BYTES, LABEL[1:]),
    r"train\['label'\] must have the shape .* label.argmax\(1\)": (BYTES, np.eye(3)[LABEL]),
    r"train\['label'\] must have whole numbers, not float64": (BYTES, LABEL / 1),
    r"train\['label'\] has labels from -1 to 1": (BYTES, LABEL - 1),
    r"No training example has label 0, .* give num_classes=4": (BYTES, LABEL + 1),
    r"test\['image'\] has images of shape \(4, 4, 2\), .* \(3, 4, 2\)": (BYTES[:, 1:], LABEL),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arrays_are_refused(message):
    wrong = WRONG[message]
    wrong = dict(zip(("image", "label"), wrong, strict=True)) if type(wrong) is tuple else wrong
    with pytest.raises(ValueError, match=message):
        data.from_arrays("mine", wrong, {"image": BYTES, "label": LABEL})


def test_classes_may_be_given():
    assert made(label=LABEL + 1, num_classes=5).num_classes == 5
    with pytest.raises(ValueError, match="from 0 to num_classes - 1 = 1"):
        made(num_classes=2)


@pytest.mark.parametrize("name", [None, "", " ", 3])
def test_a_name_must_be_text(name):
    split = {"image": BYTES, "label": LABEL}
    tokens = np.arange(4)
    text = data.text_from_tokens(tokens, tokens, 4)
    makers = [
        lambda: data.from_arrays(name, split, split),
        lambda: data.text_from_tokens(tokens, tokens, 4, name=name),
        lambda: tasks.image_classification(data.load("digits"), None, None, name=name),
        lambda: tasks.autoencoding(data.load("digits"), None, None, name=name),
        lambda: tasks.windowed_language_modeling(text, None, None, window=2, name=name),
        lambda: tasks.language_modeling(text, None, None, batch_size=1, window=2, name=name),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=f"name must be text, .* but it is {name!r}"):
            make()

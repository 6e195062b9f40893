"""The device program of every experiment, at its large scales, is expressed for GPUs and TPUs."""

import importlib
import pathlib
import re

import numpy as np
import pytest

import experiments
from noisegen import data, hardware, training
from noisegen.sweeps.experiment import load_experiment

pytestmark = pytest.mark.slow

HERE = pathlib.Path(experiments.__path__[0])
PATHS = sorted(path for path in HERE.rglob("*.py") if "def get_config(" in path.read_text())
# Pixels, channels and classes of the data sets that experiments name.
SHAPES = {
    "digits": (8, 1, 10),
    "mnist": (28, 1, 10),
    "fashion_mnist": (28, 1, 10),
    "cifar10": (32, 3, 10),
    "cifar100": (32, 3, 100),
    "imagenet_resized/64x64": (64, 3, 1000),
}


def large_scales():
    """Yields every experiment with each of its scales `gpu` and `paper`."""
    for path in PATHS:
        name = str(path.relative_to(HERE).with_suffix("")).replace("/", ".")
        module = importlib.import_module(f"experiments.{name}")
        with pytest.raises(ValueError, match="write one of") as refused:
            module.get_config("huge")
        scales = str(refused.value).split("write one of ")[1].split(" after the colon")[0]
        for scale in scales.split(", "):
            if scale in ("gpu", "paper"):
                yield pytest.param(path, scale, id=f"{name}:{scale}")


def blank_images(name, pixels=None, **_):
    """A data set of black images, in place of `data.load`."""
    side, channels, classes = SHAPES.get(name, (224, 3, 1000))
    side = pixels or side
    # Large enough for the largest batches; black images take no memory until they are written.
    count = 60_000 if side < 100 else 4096

    def split(count):
        labels = np.arange(count, dtype=np.int32) % classes
        return {"image": np.zeros((count, side, side, channels), np.uint8), "label": labels}

    gray = (0.5,) * channels
    return data.Dataset(
        name, split(count), split(count // 6), classes, gray, gray, "0" * 16, "made up"
    )


@pytest.mark.parametrize(("path", "scale"), list(large_scales()))
def test_it_is_lowered_without_callbacks_and_float64(path, scale, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "load", blank_images)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    texts = [f"wiki.{split}.tokens" for split in ("train", "valid", "test")]
    for name in [*texts, *(f"ptb.{split}.txt" for split in ("train", "valid", "test"))]:
        (tmp_path / "texts" / name).write_text("the cat sat on the mat\n" * 40_000)
    experiment = load_experiment(f"{path}:{scale}")
    config = experiment.get_config()
    if "imagenet" in config.task.get("dataset", ""):
        # All of ImageNet would not fit, and its size changes no shape.
        config.task.update(num_train=4096, num_test=500)
    sweep = experiment.get_sweep(config)
    task = sweep.task_of(sweep.planned[0])
    [run] = training.make_runs(task, [sweep.planned[0]], mixing=False)
    config_of_pool = hardware.default_config(task, run, 1, {})
    traced = training.trace_program(task, run, config_of_pool, names=["restart", "advance"])
    for name, function in traced.items():
        text = function.lower(lowering_platforms=("cuda", "tpu")).as_text()
        # Integers of 64 bits are JAX's own, for random bits, and XLA optimizes them away.
        assert "callback" not in text and "f64>" not in text
        if name == "advance" and config.task.get("dtype") == "bfloat16":
            products = re.findall(
                r"stablehlo\.(convolution|dot_general).*-> tensor<.*x(\w+)>", text
            )
            assert "bf16" in {dtype for _, dtype in products}
            assert {dtype for kind, dtype in products if kind == "convolution"} <= {"bf16"}

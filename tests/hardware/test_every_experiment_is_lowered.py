"""The device program of every experiment, at its large scales, is expressed for GPUs and TPUs."""

import importlib
import re

import pytest

from noisegen import hardware, training
from noisegen.sweeps.experiment import load_experiment
from tests.hardware import programs

pytestmark = pytest.mark.slow

PATHS = sorted(
    path for path in programs.EXPERIMENTS.rglob("*.py") if "def get_config(" in path.read_text()
)


def large_scales():
    """Yields every experiment with each of its scales `gpu` and `paper`."""
    for path in PATHS:
        name = str(path.relative_to(programs.EXPERIMENTS).with_suffix("")).replace("/", ".")
        module = importlib.import_module(f"experiments.{name}")
        with pytest.raises(ValueError, match="write one of") as refused:
            module.get_config("huge")
        scales = str(refused.value).split("write one of ")[1].split(" after the colon")[0]
        for scale in scales.split(", "):
            if scale in ("gpu", "paper"):
                yield pytest.param(path, scale, id=f"{name}:{scale}")


def is_bfloat16(path, scale):
    config = load_experiment(f"{path}:{scale}").get_config()
    return config.task.get("dtype") == "bfloat16"


@pytest.mark.parametrize(("path", "scale"), list(large_scales()))
def test_it_is_lowered_without_callbacks_and_float64(path, scale, tmp_path):
    task, run = programs.make_run(path, scale, tmp_path)
    config_of_pool = hardware.default_config(task, run, 1, {})
    traced = training.trace_program(task, run, config_of_pool, names=["restart", "advance"])
    for name, function in traced.items():
        text = function.lower(lowering_platforms=("cuda", "tpu")).as_text()
        # Integers of 64 bits are JAX's own, for random bits, and XLA optimizes them away.
        assert "callback" not in text and "f64>" not in text
        if name == "advance" and is_bfloat16(path, scale):
            products = re.findall(
                r"stablehlo\.(convolution|dot_general).*-> tensor<.*x(\w+)>", text
            )
            assert "bf16" in {dtype for _, dtype in products}
            assert {dtype for kind, dtype in products if kind == "convolution"} <= {"bf16"}

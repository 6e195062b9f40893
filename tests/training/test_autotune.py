"""Autotuning offers configs that work and leaves alone what is fixed."""

import types

import pytest

from noisegen import training
from noisegen.training.autotune import _candidates

RUN = {"learning_rate": 0.1, "momentum": 0.5, "noise": 0.0, "seed": 0, "num_epochs": 2}


def test_one_run_takes_one_lane(tanh_task):
    settings, seconds = training.autotune(tanh_task, [RUN | {"batch_size": 4}])
    assert settings.lanes == settings.lane_devices == settings.batch_devices == 1
    assert settings.microbatch == 16  # more would stay empty
    assert 0 < seconds < 60


def test_fixed_settings_stay(tanh_task):
    runs = [RUN | {"batch_size": size} for size in (1, 20, 60)]
    fixed = {"lanes": 4, "lane_devices": 2, "microbatch": 6, "precision": "highest"}
    settings, seconds = training.autotune(tanh_task, runs, **fixed)
    assert {name: getattr(settings, name) for name in fixed} == fixed
    assert seconds > 0


def test_fixed_lanes_need_no_fixed_devices(tanh_task):
    runs = [RUN | {"batch_size": 4, "seed": seed} for seed in range(8)]
    settings, _ = training.autotune(tanh_task, runs, lanes=3, microbatch=8)
    assert (settings.lanes, settings.lane_devices) == (3, 3)


def test_bad_runs_are_refused(tanh_task):
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        training.autotune(tanh_task, [RUN | {"batch_size": 0}])
    with pytest.raises(ValueError, match="at least one run"):
        training.autotune(tanh_task, [])


def test_fixed_settings_leave_nothing_to_chance(tanh_task):
    # What is not measured follows from what is used, so that equal programs are compiled once.
    plans = {training.plan({"batch_size": 512, "num_epochs": 1, "seed": 0}, 1024): 1000}
    for platform, derived in (("cpu", (8, 16)), ("gpu", (8, 2000))):
        device = types.SimpleNamespace(platform=platform)
        candidates = set(_candidates([device], plans, tanh_task, lanes=64, microbatch=64))
        assert {(c.lanes_per_rare_step, c.eval_batch) for c in candidates} == {derived}
        assert len(candidates) == 1
    with pytest.raises(ValueError, match="batch_devices=0 must be a whole number"):
        training.autotune(None, [RUN], batch_devices=0)

"""Runs are named, planned and checked once, when they are made."""

import dataclasses

import numpy as np
import optax
import pytest

from noisegen import sweeps, training
from noisegen.training import run as run_lib

FIELDS = {"batch_size": 7, "learning_rate": 0.1, "momentum": 0.5, "noise": 0.0}
FIELDS |= {"num_epochs": 2, "seed": 0}


def test_a_run_holds_id_hyperparameters_and_plan(tanh_task):
    spelled = FIELDS | {"learning_rate": np.float32(0.1), "batch_size": 7.0}
    [run] = training.make_runs(tanh_task, [spelled])
    assert run.id == sweeps.run_id("tanh", FIELDS)
    assert run.hparams == FIELDS and type(run.hparams["batch_size"]) is int
    assert run.plan is training.plan(FIELDS, tanh_task.num_examples)


def test_runs_are_equal_if_their_ids_are(tanh_task):
    one, same, other = training.make_runs(
        tanh_task, [FIELDS, dict(FIELDS), FIELDS | {"learning_rate": 0.2}]
    )
    assert one == same and hash(one) == hash(same) and one != other
    assert {one: 1}[same] == 1
    assert one.plan is other.plan


@pytest.mark.slow
def test_a_pool_neither_plans_nor_names_nor_checks_again(tanh_task, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("done again")

    runs = training.make_runs(tanh_task, [FIELDS])
    expected = list(training.Pool(tanh_task).train([FIELDS]))
    for name in ("plan_runs", "canonical_fields", "hash_canonical", "check_task", "_names_read"):
        monkeypatch.setattr(run_lib, name, refuse)
    pool = training.Pool(tanh_task)
    [result] = pool.train(runs)
    assert result.hparams is runs[0].hparams and result.run_id == runs[0].id
    assert result.curve == expected[0].curve
    training.autotune(tanh_task, runs, microbatch=16)


def test_runs_and_mappings_may_be_mixed(tanh_task):
    other = FIELDS | {"seed": 1}
    runs = training.make_runs(tanh_task, [FIELDS])
    results = list(training.Pool(tanh_task).train([*runs, other]))
    assert [result.hparams for result in results] == [FIELDS, other]


def test_a_task_may_refuse_runs(tanh_task):
    def check_run(hparams, plan):
        if plan.smallest_batch < hparams["momentum"] * 10:
            raise ValueError("too much momentum")

    task = dataclasses.replace(tanh_task, check_run=check_run)
    assert training.make_runs(task, [FIELDS])
    with pytest.raises(ValueError, match="too much momentum"):
        training.make_runs(task, [FIELDS, FIELDS | {"batch_size": 4}])
    with pytest.raises(ValueError, match="check_run of task 'tanh' must be a function"):
        training.make_runs(dataclasses.replace(tanh_task, check_run=3), [FIELDS])


def test_what_is_no_mapping_is_refused(tanh_task):
    with pytest.raises(ValueError, match="a run is a mapping from field to value, got 3"):
        training.make_runs(tanh_task, [3])


def test_a_field_that_runs_of_another_word_read_is_no_mistake(tanh_task):
    def make_optimizer(hparams, key):
        if hparams["rule"] == "adam":
            return optax.adam(hparams["learning_rate"] + 0 * hparams["noise"])
        return optax.sgd(hparams["learning_rate"], hparams["momentum"])

    task = dataclasses.replace(tanh_task, make_optimizer=make_optimizer)
    adam, sgd = FIELDS | {"rule": "adam"}, FIELDS | {"rule": "sgd"}
    with pytest.raises(ValueError, match="Nothing reads the run's momentum"):
        training.make_runs(task, [adam])
    assert len(training.make_runs(task, [adam], others=[sgd])) == 1

"""Every module under experiments/ is what it claims to be, and a tiny form of it trains."""

import importlib
import pathlib

import pytest

import experiments
from launch import experiment
from noisegen import sweeps, training

HERE = pathlib.Path(experiments.__path__[0])
SWEEPS = sorted(
    ".".join(("experiments", *path.relative_to(HERE).with_suffix("").parts))
    for path in HERE.rglob("*.py")
    if "def get_config(" in path.read_text()
)

IMAGES = {
    "task.sizes": (2, 3, 4),
    "grid.batch_size": (5,),
    "grid.learning_rate": (0.1,),
    "grid.seed": (0,),
    "run.num_epochs": 2.0,
}
RATES = {"grid.effective_learning_rate": (2**-5,), "grid.seed": (0,), "best": 1}
DIGITS = RATES | {"task.dataset": "digits", "task.num_train": 64, "task.num_test": 32}
EPOCHS = DIGITS | {"run.batch_size": 16, "grid.num_epochs": (5, 6)}
UPDATES = {"run.num_updates": 20}
LENET = {"grid.batch_size": (5,), "grid.seed": (0,), "run.num_epochs": 2.0}
TEXT = {"task.vocabulary_size": 20, "task.hidden": 4, "task.window": 5, "grid.batch_size": (4,)}
CIFAR = {"task.num_train": 7, "task.num_test": 3, "task.width": 2, "grid.seed": (0,)}
RAGGED = CIFAR | {
    "grid.batch_size": (4,),
    "grid.eta": (0.0, 0.3),
    "grid.learning_rate": (0.1,),
    "run.num_epochs": 2.0,
}
DENSE = CIFAR | {
    "task.network": "mlp",
    "grid.batch_size": (4,),
    "run.num_epochs": 5.0,
    "run.num_evals": 2,
}
MATCHED = {
    "task.num_train": 7,
    "task.num_test": 3,
    "task.noise_group": 2,
    "run.num_evals": 1,
    "base.batch_size": 4,
    "grid.batch_size": (6,),
    "grid.learning_rate": (2**-4,),
    "grid.eta": (0.1,),
    "grid.seed": (0,),
}
GHOSTS = {"task.ghost_size": 2}
# What makes a sweep small; an experiment without an entry fails its test.
TINY = {
    "experiments.digits": {
        "grid.batch_size": (64,),
        "grid.learning_rate": (0.25, 0.5),
        "grid.seed": (0,),
        "run.num_epochs": 1.0,
        "best": 1,
    },
    "experiments.additive_noise.figure1": IMAGES,
    "experiments.additive_noise.figure2": IMAGES,
    "experiments.additive_noise.table1": IMAGES,
    "experiments.additive_noise.table2": RAGGED,
    "experiments.additive_noise.table2_ghost": RAGGED | {"task.ghost_size": 4},
    "experiments.additive_noise.table3": IMAGES,
    "experiments.additive_noise.wikitext2": TEXT
    | {"grid.learning_rate": (0.1,), "grid.seed": (0,), "run.num_epochs": 2.0},
    "experiments.jaiswal2020.figure4": DENSE,
    "experiments.jaiswal2020.figure5": DENSE,
    "experiments.jaiswal2020.future": DENSE,
    "experiments.jaiswal2020.table2": DENSE,
    **{
        f"experiments.signer2021.{name}": LENET
        for name in (
            *("adam", "constant_warmup", "decay"),
            *("figure1", "figure2", "figure3", "figure4", "figure5"),
        )
    },
    "experiments.jaiswal2020.figure3": {
        "task.num_train": 7,
        "task.num_test": 3,
        "task.hidden": (4,),
        "task.num_measured": 5,
        "grid.batch_size": (4, 6),
        "grid.temperature": (2**-10,),
        "grid.seed": (0,),
        "run.num_epochs": 2.0,
    },
    "experiments.matched_noise.cifar10_epochs": MATCHED | {"task.dataset": "digits"} | GHOSTS,
    "experiments.matched_noise.cifar10_steps": MATCHED | {"task.dataset": "digits"} | GHOSTS,
    "experiments.matched_noise.mnist_epochs": MATCHED,
    "experiments.matched_noise.mnist_steps": MATCHED,
    "experiments.signer2021.base_rate": LENET | {"grid.learning_rate": (0.01, 0.02)},
    "experiments.signer2021.figure6": LENET
    | {"base.batch_size": 3, "base.momentum_batch_size": 5, "grid.batch_size": (3, 5, 7)}
    | {"grid.momentum_batch_size": (7,)},
    "experiments.smith2020.figure2_autoencoder": RATES
    | {"grid.num_epochs": (2, 4), "run.batch_size": 2, "task.num_train": 5, "task.num_test": 3},
    "experiments.smith2020.figure2_lstm": RATES
    | {name: value for name, value in TEXT.items() if name != "grid.batch_size"}
    | {"grid.num_epochs": (2, 4), "run.batch_size": 4},
    "experiments.smith2020.autoencoder": RATES
    | UPDATES
    | {"grid.batch_size": (4,), "task.num_train": 5, "task.num_test": 3},
    "experiments.smith2020.figure1": DIGITS | {"grid.batch_size": (16,), "run.num_epochs": 5.0},
    "experiments.smith2020.figure1_autoencoder": RATES
    | {"run.num_epochs": 2.0, "grid.batch_size": (4,), "task.num_train": 5, "task.num_test": 3},
    "experiments.smith2020.figure1_lstm": RATES | {"run.num_epochs": 2.0} | TEXT,
    "experiments.smith2020.figure1_skipinit": DIGITS
    | {"grid.batch_size": (16,), "run.num_epochs": 5.0},
    "experiments.smith2020.figure2": EPOCHS,
    "experiments.smith2020.figure2_skipinit": EPOCHS,
    "experiments.smith2020.figure3": EPOCHS | {"grid.final_effective_learning_rate": (2**-10,)},
    "experiments.smith2020.lstm": RATES | UPDATES | TEXT,
    "experiments.smith2020.resnet50": RATES
    | {"grid.batch_size": (4,), "grid.momentum": (0.9,), "run.num_epochs": 5.0}
    | {"task.num_train": 7, "task.num_test": 3, "task.stages": (1,), "task.ghost_size": 4},
    "experiments.smith2020.stability": DIGITS | {"run.batch_size": 16, "run.num_epochs": 5.0},
    "experiments.smith2020.table1": DIGITS | UPDATES | {"grid.batch_size": (16,)},
    "experiments.smith2020.table1_cifar100": DIGITS | UPDATES | {"grid.batch_size": (16,)},
    "experiments.smith2020.table1_short": DIGITS
    | {"run.batch_size": 16, "grid.num_updates": (20,)},
    "experiments.smith2020.table1_skipinit": DIGITS | UPDATES | {"grid.batch_size": (16,)},
    "experiments.smith2020.temperature": DIGITS | {"run.batch_size": 1, "run.num_epochs": 1.0},
}
SAME_TASK = (
    {
        f"experiments.smith2020.{name}"
        for name in (
            *("figure1", "figure1_autoencoder", "figure1_lstm", "figure1_skipinit", "figure2"),
            *("figure2_autoencoder", "figure2_lstm", "stability"),
            *("table1_cifar100", "table1_short", "table1_skipinit"),
        )
    }
    | {
        "experiments.matched_noise.cifar10_steps",
        "experiments.matched_noise.mnist_steps",
    }
    | {
        f"experiments.signer2021.{name}"
        for name in (
            *("base_rate", "constant_warmup"),
            *("figure1", "figure2", "figure3", "figure4", "figure5"),
        )
    }
)
SAME_TASK |= {
    f"experiments.additive_noise.{name}" for name in ("figure2", "table2_ghost", "table3")
}
SAME_TASK |= {f"experiments.jaiswal2020.{name}" for name in ("figure5", "table2")}
NUM_RUNS = {
    "experiments.jaiswal2020.figure3": 3 * 5 * 3,
    "experiments.matched_noise.cifar10_epochs": 318,
    "experiments.matched_noise.cifar10_steps": 93,
    "experiments.matched_noise.mnist_epochs": 534,
    "experiments.matched_noise.mnist_steps": 93,
    "experiments.digits": 315,
    "experiments.additive_noise.figure1": 10,
    "experiments.additive_noise.figure2": 2 * 3,
    "experiments.additive_noise.table1": 756,
    "experiments.additive_noise.table2": 4 * 5 * 4 * 3,
    "experiments.additive_noise.table2_ghost": 4 * 5 * 4 * 3,
    "experiments.additive_noise.table3": 2,
    "experiments.additive_noise.wikitext2": 5 * 4 * 3 * 3,
    "experiments.jaiswal2020.figure4": 3 * 2 * 5,
    "experiments.jaiswal2020.figure5": 3 * 5,
    "experiments.jaiswal2020.future": 6 * 2 * 5,
    "experiments.jaiswal2020.table2": 2 * 2 * 5,
    "experiments.signer2021.adam": (8 + 7 + 7) * 3,
    "experiments.signer2021.base_rate": 8 * 3,
    "experiments.signer2021.constant_warmup": 8 * 3,
    "experiments.signer2021.decay": (8 + 7 + 7) * 3,
    **{f"experiments.signer2021.figure{number}": 8 * 3 for number in range(1, 6)},
    "experiments.signer2021.figure6": 4 * 3,
    "experiments.smith2020.autoencoder": 8 * 8 * 3,
    "experiments.smith2020.figure1": 8 * 8 * 2 * 3,
    "experiments.smith2020.figure1_autoencoder": 8 * 8 * 2 * 3,
    "experiments.smith2020.figure1_lstm": 6 * 6 * 2 * 3,
    "experiments.smith2020.figure1_skipinit": 8 * 8 * 2 * 3,
    "experiments.smith2020.figure2": 6 * 7 * 3,
    "experiments.smith2020.figure2_autoencoder": 5 * 6 * 3,
    "experiments.smith2020.figure2_lstm": 5 * 6 * 3,
    "experiments.smith2020.figure2_skipinit": 6 * 7 * 3,
    "experiments.smith2020.figure3": 3 * 5 * 4 * 3,
    "experiments.smith2020.lstm": 6 * 6 * 3,
    "experiments.smith2020.resnet50": 3 * 5 * 2,
    "experiments.smith2020.stability": 10 * 2 * 3,
    "experiments.smith2020.table1": 8 * 6 * 3,
    "experiments.smith2020.table1_cifar100": 8 * 6 * 3,
    "experiments.smith2020.table1_short": 4 * 6 * 3,
    "experiments.smith2020.table1_skipinit": 8 * 6 * 3,
    "experiments.smith2020.temperature": 7 * 2 * 5,
}


def load(name, overrides=None):
    """The experiment in a module, as the command line reads it."""
    config = importlib.import_module(name).get_config()
    config.lock()
    config.update_from_flattened_dict(overrides or {})
    return experiment.load(HERE.parent / f"{name.replace('.', '/')}.py", config)


def test_there_are_experiments():
    assert set(TINY) <= set(SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
def test_it_loads_and_says_what_it_is(name):
    plan = load(name)
    assert plan.title and plan.description
    assert not plan.title.endswith(".")  # a title, not a sentence
    assert isinstance(plan.protocols[0], sweeps.Protocol)


@pytest.mark.parametrize("name", SWEEPS)
def test_its_grid_is_the_documented_one_and_no_run_stands_twice(name):
    runs = load(name).runs
    assert len(runs) == len(sweeps.by_run_id("any", runs)) == NUM_RUNS[name]


@pytest.mark.parametrize("name", SWEEPS)
def test_no_field_can_be_misspelt(name):
    with pytest.raises((KeyError, AttributeError)):
        load(name, {"run.num_epoch": 1.0})


@pytest.mark.parametrize("name", SWEEPS)
def test_its_task_and_protocols_read_what_its_runs_have(name, made_data):
    plan = load(name, TINY[name])
    plan.make_tasks().check(dict(enumerate(plan.runs)), plan.protocols)


# Longest to compile, each much like another that is not.
SLOW = {
    "experiments.additive_noise.table2",
    "experiments.matched_noise.cifar10_epochs",
    "experiments.matched_noise.mnist_epochs",
    "experiments.smith2020.figure2_skipinit",
    "experiments.smith2020.figure3",
    "experiments.smith2020.temperature",
}


# The others train what these train.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in sorted(set(SWEEPS) - SAME_TASK)
    ],
)
def test_its_tiny_form_trains_and_makes_a_table(name, made_data):
    plan = load(name, TINY[name])
    [(task, group)] = plan.make_tasks().groups(dict(enumerate(plan.runs))).items()
    microbatch = task.noise_group or max(4, task.ghost_size)
    pool = training.Pool(task, training.Settings(lanes=2, microbatch=microbatch, eval_batch=60))
    results = list(pool.train(list(group.values())))
    assert len(results) == len(plan.runs) and {r.status for r in results} == {"finished"}
    for result in results:
        [course] = training.plan_runs(task, [result.hparams])
        assert result.num_updates == course.num_updates
        assert result.num_examples == course.num_examples
    records = [vars(r) | {"run": r.hparams, "run_id": str(i)} for i, r in enumerate(results)]
    for protocol in plan.protocols:
        optima = sweeps.select(records, protocol)
        assert {optimum.row for optimum in optima} == {run[protocol.row] for run in plan.runs}
        assert sweeps.to_text(sweeps.make_table(optima, protocol, plan.published))


def test_what_is_trained_enters_the_name_of_the_task_and_how_fast_does_not(made_data):
    name = "experiments.additive_noise.table1"
    first = load(name, IMAGES).make_tasks().name
    assert load(name, IMAGES | {"convolution": "lax"}).make_tasks().name == first
    assert load(name, IMAGES | {"task.dropout": 0.5}).make_tasks().name != first
    assert load(name, IMAGES | {"task.sizes": (2, 3, 5)}).make_tasks().name != first

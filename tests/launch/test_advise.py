"""The command that predicts a sweep's answers from short runs."""

import pytest

from noisegen import storage
from tests.launch.harness import DIGITS, last_error

SMALL = (
    DIGITS,
    "--config.grid.batch_size=(16, 64, 256, 1024)",
    "--config.grid.learning_rate=(0.03125, 0.0625, 0.125, 0.25)",
    "--config.run.num_epochs=16.0",
)


@pytest.mark.slow
def test_the_command_predicts_and_trains_nothing_again(call, tmp_path):
    flags = (*SMALL, f"--workdir={tmp_path}", "--minutes=1")
    done = call("advise", *flags)
    assert done.returncode == 0, done.stderr
    assert "batch size" in done.stdout and "noise scale" in done.stdout
    command = "python -m launch.sweep --config=experiments/digits.py"
    assert command in done.stdout and "--config.search=race" in done.stdout
    assert "--config.run.num_epochs=16.0" in done.stdout
    records = storage.read_records(tmp_path / "advice")
    assert records and max(record.hparams["num_epochs"] for record in records) < 16
    again = call("advise", *flags)
    assert again.stdout == done.stdout
    assert len(storage.read_records(tmp_path / "advice")) == len(records)


@pytest.mark.slow
def test_too_small_a_budget_is_one_line_with_one_that_suffices(call, tmp_path):
    done = call("advise", *SMALL, f"--workdir={tmp_path / 'sweep'}", "--minutes=0.001")
    assert "it takes --minutes=" in last_error(done)
    assert not (tmp_path / "sweep").exists()


def test_an_error_of_training_keeps_its_traceback(call, tmp_path):
    experiment = tmp_path / "broken.py"
    experiment.write_text(
        "from experiments.digits import get_config, get_sweep\n"
        "from noisegen import training\n"
        "def autotune(*args, **options):\n"
        "    raise ValueError('the shapes in the loss differ')\n"
        "training.autotune = autotune  # stands for training\n"
    )
    done = call("advise", f"--config={experiment}", *SMALL[1:], f"--workdir={tmp_path / 'sweep'}")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "in autotune" in done.stderr
    assert "error: " not in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "flags, expected",
    [
        ((DIGITS, "--minutes=1"), "--workdir"),
        (("--workdir=w", "--minutes=1"), "--config"),
        ((DIGITS, "--workdir=w", "--minutes=0"), "error: --minutes=0.0 must be a positive"),
        ((DIGITS, "--workdir=w", "--config.grid.batch_size=64,"), "batch sizes"),
        ((DIGITS, "--workdir=w", "--pool.lane_devices=3"), "lane_devices"),
        ((DIGITS, "--workdir=w", "word"), "Unexpected argument"),
        (("--config=experiments/smith2020/figure2.py:test", "--workdir=w"), "each num_epochs"),
    ],
)
def test_other_commands_are_refused_in_one_line(call, flags, expected):
    assert expected in last_error(call("advise", *flags))

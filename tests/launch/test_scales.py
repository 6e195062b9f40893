"""An experiment with scales, several protocols and a task for each batch size, from the command."""

import pytest

from noisegen import storage
from tests.launch.harness import last_error

FLAGS = (
    "--config=experiments/smith2020/lstm.py:cpu",
    "--config.task.hidden=4",
    "--config.task.window=5",
    "--config.task.vocabulary_size=20",
    "--config.run.num_updates=20",
    "--config.grid.batch_size=2,4",
    "--config.grid.effective_learning_rate=0.5,1.0",
    "--config.grid.seed=0,",
    "--config.best=1",
    *(
        "--pool.lanes=1",
        "--pool.lane_devices=1",
        "--pool.microbatch=2",
        "--pool.eval_batch=2",
        "--pool.lanes_per_rare_step=1",
    ),
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The flag that names a directory with two made-up texts."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("wiki.valid.tokens", "wiki.test.tokens"):
        (folder / name).write_text("the cat sat on the mat\n" * 20)
    return f"--config.task.directory={folder}"


@pytest.mark.slow
def test_runs_are_trained_batch_size_by_batch_size(call, texts, tmp_path):
    workdir = f"--workdir={tmp_path / 'sweep'}"
    first = call("sweep", *FLAGS, texts, workdir, "--config.grid.batch_size=2,")
    assert "given twice" in first.stderr  # flags of a list do not add up
    flags = [flag for flag in FLAGS if "batch_size" not in flag]
    first = call("sweep", *flags, texts, workdir, "--config.grid.batch_size=2,")
    assert first.returncode == 0, first.stderr
    both = call("sweep", *FLAGS, texts, workdir)
    assert both.returncode == 0, both.stderr
    records = storage.read_records(tmp_path / "sweep")
    sizes = [record.hparams["batch_size"] for record in records]
    assert set(sizes) == {2, 4}
    done = {record.run_id for record in records}
    assert len(done) == len(records)  # the second command did none again
    assert "test loss" in both.stdout and "compiling" not in both.stderr.splitlines()[-1]

    status = call("status", workdir)
    assert "LSTM language model" in status.stdout, status.stderr


@pytest.mark.slow
def test_a_dry_run_estimates_the_time_of_the_tasks_of_all_batch_sizes(call, texts):
    flags = [flag for flag in FLAGS if "--pool" not in flag]
    dry = call("sweep", *flags, texts, "--dry_run", "--target=h100")
    assert "4 runs, 240 training examples" in dry.stdout, dry.stderr
    assert "on h100, at an efficiency of 0." in dry.stdout


def test_an_unknown_scale_lists_those_there_are(call):
    failed = call("sweep", "--config=experiments/smith2020/table1.py:tiny", "--dry_run")
    assert "write one of paper, gpu, cpu" in last_error(failed)

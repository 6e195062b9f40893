"""An experiment with scales, several protocols and a task for each batch size, from the command."""

import pytest

from launch import experiment
from launch.tasks import Tasks
from noisegen import sweeps

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
        "--lanes=1",
        "--lane_devices=1",
        "--microbatch=2",
        "--eval_batch=2",
        "--lanes_per_rare_step=1",
    ),
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The flag that names a directory with two made-up texts."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("wiki.valid.tokens", "wiki.test.tokens"):
        (folder / name).write_text("the cat sat on the mat\n" * 20)
    return f"--config.task.directory={folder}"


def test_runs_are_trained_batch_size_by_batch_size(call, texts, tmp_path):
    workdir = f"--workdir={tmp_path / 'sweep'}"
    first = call("sweep", *FLAGS, texts, workdir, "--config.grid.batch_size=2,")
    assert "given twice" in first.stderr  # flags of a list do not add up
    flags = [flag for flag in FLAGS if "batch_size" not in flag]
    first = call("sweep", *flags, texts, workdir, "--config.grid.batch_size=2,")
    assert first.returncode == 0, first.stderr
    both = call("sweep", *FLAGS, texts, workdir)
    assert both.returncode == 0, both.stderr
    records = sweeps.read(tmp_path / "sweep")
    sizes = [record["run"]["batch_size"] for record in records]
    assert set(sizes) == {2, 4}
    done = {record["run_id"] for record in records}
    assert len(done) == len(records)  # the second command did none again
    assert "test loss" in both.stdout and "compiling" not in both.stderr.splitlines()[-1]

    status = call("status", workdir)
    assert "LSTM language model" in status.stdout, status.stderr
    dry = call("sweep", *FLAGS, texts, "--dry_run")
    assert "4 runs, 240 training examples" in dry.stdout, dry.stderr
    assert "GPU-hours at the 10,000 examples/s assumed" in dry.stdout


def test_an_unknown_scale_lists_those_there_are(call):
    failed = call("sweep", "--config=experiments/smith2020/table1.py:tiny", "--dry_run")
    assert failed.returncode == 1
    assert "write one of paper, gpu, cpu after the colon" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_the_scale_is_kept_with_the_sweep(tmp_path):
    path = "experiments/smith2020/table1.py:gpu"
    config = experiment._module(experiment._scaled(path)[0]).get_config("gpu")
    exp = experiment.load(path, config)
    assert (exp.name, exp.scale) == ("table1:gpu", "gpu")
    sweeps.open_workdir(tmp_path, exp.name, "task", experiment.meta(exp, "data", "command"))
    again = experiment.load_from_workdir(tmp_path)
    assert again.runs == exp.runs and again.config == exp.config
    names = {file.name for file in exp.code_files}
    assert names == {"table1.py", "common.py", "wide_resnet.py"}


def test_tasks_of_all_batch_sizes_share_a_name():
    class Named:
        def __init__(self, batch_size):
            self.name, self.source = f"task {batch_size}", ""

    runs = [{"batch_size": 2}, {"batch_size": 4}]
    with pytest.raises(ValueError, match="which is no Task"):
        Tasks(Named, runs)
    with pytest.raises(ValueError, match="A run needs the field batch_size"):
        Tasks(Named, [{"seed": 0}])

"""A command that is refused begins no directory and leaves no file; one that is done keeps all."""

import json
import os
import subprocess
import sys

import pytest

from launch import report, sweep
from noisegen import storage
from noisegen.storage import workdir as workdirs
from noisegen.sweeps import experiment
from tests.launch.harness import DIGITS, ROOT, TWO_LANES, last_error

REFUSED = {
    "settings": (("--pool.batch_devices=2", "--pool.microbatch=17"), "microbatch=17"),
    "devices": (("--pool.lane_devices=3", "--pool.lanes=3"), "there are 2"),
    "a bucket": (("--workdir=gs://bucket/sweep",), "gs://bucket/sweep is no directory"),
    "no cluster": (("--launcher=ray", "--ray.address=127.0.0.1:1"), "nobody answers there"),
    "no Slurm": (("--launcher=slurm", "--slurm.folder={tmp}/folder"), "no sbatch here"),
    "a Slurm out of order": (
        ("--launcher=slurm", "--slurm.folder={tmp}/folder"),
        "Slurm refuses the jobs: sbatch: error: nobody home",
    ),
    "other devices": (("--launcher=local",), "JAX_PLATFORMS=nonsense: JAX finds no such device"),
    "a field given twice": (("-config.best=1", "--config.best=2"), "--config.best is given twice"),
    "settings of workers": (
        ("--workers=2", "--pool.batch_devices=2", "--pool.eval_batch=3"),
        "eval_batch=3",
    ),
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The environment of a refused command by the name of the case."""
    programs = tmp_path_factory.mktemp("programs")
    for name in ("sbatch", "srun"):
        (programs / name).write_text("#!/bin/sh\necho 'sbatch: error: nobody home' >&2; exit 1\n")
        (programs / name).chmod(0o700)
    return {
        "no Slurm": {"PATH": str(tmp_path_factory.mktemp("no_programs"))},
        "a Slurm out of order": {"PATH": f"{programs}:/usr/bin:/bin"},
        "other devices": {"JAX_PLATFORMS": "nonsense"},
    }


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_command_leaves_nothing(call, tmp_path, variables, name):
    flags, words = REFUSED[name]
    more = variables.get(name, {})
    flags = [flag.format(tmp=tmp_path) for flag in flags]
    workdir = [] if name == "a bucket" else [f"--workdir={tmp_path}/deep/sweep"]
    done = call("sweep", DIGITS, *workdir, *flags, HOME=str(tmp_path), **more)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []
    assert not os.path.exists("gs:")


def test_what_is_begun_and_refused_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "there").mkdir()
    workdir = tmp_path / "there" / "deep" / "sweep"
    with pytest.raises(ValueError), storage.undone_if_refused(workdir):
        storage.open_workdir(workdir, "sweep", "task")
        (workdir / "logs").mkdir()
        raise ValueError
    assert os.listdir(tmp_path / "there") == []


@pytest.mark.parametrize("file", ["records/a.jsonl", "logs/a.log", "notes.txt"])
def test_a_directory_with_anything_in_it_is_kept(tmp_path, file):
    with pytest.raises(ValueError), storage.undone_if_refused(tmp_path / "sweep"):
        storage.open_workdir(tmp_path / "sweep", "sweep", "task")
        path = tmp_path / "sweep" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        raise ValueError
    assert storage.read_sweep(tmp_path / "sweep")["sweep"] == "sweep"


def test_a_sweep_that_was_begun_before_is_kept(tmp_path):
    storage.open_workdir(tmp_path, "sweep", "task")
    with pytest.raises(ValueError), storage.undone_if_refused(tmp_path):
        raise ValueError
    assert storage.read_sweep(tmp_path)["sweep"] == "sweep"


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    storage.check_writable(tmp_path / "deep" / "sweep")
    assert os.listdir(tmp_path) == []

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workdirs.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="could not write in .*No space left .*free space"):
        storage.check_writable(tmp_path / "deep" / "sweep")


@pytest.fixture
def digits(tmp_path):
    """The sweep of an experiment."""
    loaded = experiment.load_experiment("experiments/digits.py")
    return loaded.get_sweep(loaded.get_config(), tmp_path / "a b")


@pytest.mark.parametrize(
    ("published", "message"),
    [({("", 64): {"accuracy": (98.0, None)}}, "'accuracy'"), ({("", 64): (0.98, 0.1)}, "fraction")],
)
def test_a_report_that_cannot_be_made_is_refused_before_training(digits, published, message):
    sweep._check_report(digits)
    digits.published = published
    with pytest.raises(ValueError, match=f"digits.py: no report could be made: .*{message}"):
        sweep._check_report(digits)


@pytest.mark.parametrize("kind", [ValueError, OSError, KeyError])
def test_a_report_that_fails_at_the_end_is_one_line_with_the_remedy(monkeypatch, digits, kind):
    def fail(*_):
        raise kind("wrong here")

    monkeypatch.setattr(report, "write", fail)
    with pytest.raises(ValueError) as error:
        report.write_at_end(digits)
    said = str(error.value)
    assert "runs are trained and kept" in said and "wrong here" in said and "\n" not in said
    assert said.endswith(f"python -m launch.report '--workdir={digits.workdir}'")


def test_a_deleted_directory_is_named(tmp_path, environment):
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'cd {gone} && rmdir {gone} && exec "$0" -m launch.status --workdir={tmp_path}'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "The current directory was deleted" in last_error(done)


@pytest.mark.slow
def test_the_stored_command_can_be_pasted(tmp_path, call, environment):
    name = "a 'b' $HOME; \"c\"\n"
    flags = [DIGITS, "--config.grid.seed=0,", "--config.best=1", *TWO_LANES]
    flags += ["--config.grid.batch_size=1024", "--config.grid.learning_rate=2^-3"]
    first = call("sweep", *flags, "--config.run.num_epochs=1", f"--workdir={tmp_path / name}")
    assert first.returncode == 0, first.stderr
    assert os.listdir(tmp_path) == [name]
    stored = json.loads((tmp_path / name / "sweep.json").read_text())["command"]
    shell = f'python() {{ "{sys.executable}" "$@"; }}; {stored}'
    run = {"env": environment, "capture_output": True, "text": True, "cwd": ROOT}
    again = subprocess.run(["bash", "-c", shell], **run)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert os.listdir(tmp_path) == [name]

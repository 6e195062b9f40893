"""A command that is refused begins no directory and leaves no file; one that is done keeps all."""

import json
import os
import subprocess
import sys

import pytest

from launch import begin, command, experiment, slurm
from noisegen import reports, sweeps

DIGITS = "--config=experiments/digits.py"
REFUSED = {
    "runs that there are not": (("--only=a1,b2",), "--only=a1,b2: this sweep has no such run"),
    "settings": (("--batch_devices=2", "--microbatch=17"), "microbatch=17"),
    "devices": (("--lane_devices=3", "--lanes=3"), "there are 2"),
    "a bucket": (("--workdir=gs://bucket/sweep",), "gs://bucket/sweep is no directory"),
    "no cluster": (("--launcher=ray", "--ray.address=127.0.0.1:1"), "nobody answers there"),
    "no Slurm": (("--launcher=slurm", "--slurm.folder={tmp}/folder"), "no sbatch here"),
    "a Slurm out of order": (
        ("--launcher=slurm", "--slurm.folder={tmp}/folder"),
        "Slurm refuses the jobs: sbatch: error: nobody home",
    ),
    "other devices": (("--launcher=local",), "JAX_PLATFORMS=nonsense: JAX finds no such device"),
    "a field given twice": (("-config.best=1", "--config.best=2"), "--config.best is given twice"),
    "settings of workers": (("--workers=2", "--batch_devices=2", "--eval_batch=3"), "eval_batch=3"),
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
    with pytest.raises(ValueError), begin.undone_if_refused(workdir):
        sweeps.open_workdir(workdir, "sweep", "task")
        (workdir / "logs").mkdir()
        raise ValueError
    assert os.listdir(tmp_path / "there") == []


@pytest.mark.parametrize("file", ["records/a.jsonl", "logs/a.log", "notes.txt"])
def test_a_directory_with_anything_in_it_is_kept(tmp_path, file):
    with pytest.raises(ValueError), begin.undone_if_refused(tmp_path / "sweep"):
        sweeps.open_workdir(tmp_path / "sweep", "sweep", "task")
        path = tmp_path / "sweep" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        raise ValueError
    assert sweeps.read_sweep(tmp_path / "sweep")["sweep"] == "sweep"


def test_a_sweep_that_was_begun_before_is_kept(tmp_path):
    sweeps.open_workdir(tmp_path, "sweep", "task")
    with pytest.raises(ValueError), begin.undone_if_refused(tmp_path):
        raise ValueError
    assert sweeps.read_sweep(tmp_path)["sweep"] == "sweep"


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    begin.check_writable(tmp_path / "deep" / "sweep")
    assert os.listdir(tmp_path) == []

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(begin.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="could not write in .*No space left .*writable"):
        begin.check_writable(tmp_path / "deep" / "sweep")


@pytest.mark.parametrize(
    ("published", "message"),
    [({("", 64): {"accuracy": (98.0, None)}}, "'accuracy'"), ({("", 64): (0.98, 0.1)}, "fraction")],
)
def test_a_report_that_cannot_be_made_is_refused_before_training(published, message):
    exp = experiment.read("experiments/digits.py")
    command.check_report(exp)
    wrong = experiment.dataclasses.replace(exp, published=published)
    with pytest.raises(ValueError, match=f"digits.py: no report could be made: .*{message}"):
        command.check_report(wrong)


@pytest.mark.parametrize("kind", [ValueError, OSError, KeyError])
def test_a_report_that_fails_in_the_end_is_one_line_with_the_remedy(monkeypatch, kind):
    def fail(*_):
        raise kind("wrong here")

    monkeypatch.setattr(reports, "write_report", fail)
    exp = experiment.read("experiments/digits.py")
    with pytest.raises(ValueError) as error:
        command.report_at_end(exp, "a b")
    said = str(error.value)
    assert said.startswith("All runs are trained and kept in a b, but") and "wrong here" in said
    assert said.endswith("python -m launch.report '--workdir=a b'") and "\n" not in said


def test_slurm_refuses_paths_that_it_would_misread(tmp_path):
    defaults = {name: flag.default for name, flag in slurm.FLAGS.items()}
    for name in ("a\nb", "a\\b"):
        with pytest.raises(ValueError, match="Slurm takes no path with a new line or a backslash"):
            slurm.Array(defaults, str(tmp_path / name))


def test_slurm_needs_a_folder_where_there_is_no_home(monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(slurm.pathlib.Path, "expanduser", unknown)
    defaults = {name: flag.default for name, flag in slurm.FLAGS.items()}
    with pytest.raises(ValueError, match="--slurm.folder=.*there is no home directory"):
        slurm.Array(defaults, "sweep")


def test_jobs_that_slurm_refuses_leave_no_files(tmp_path, monkeypatch):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    (tmp_path / "bin" / "srun").symlink_to(sbatch)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    monkeypatch.setattr(sys, "orig_argv", ["python", f"--workdir={tmp_path}/sweep"])
    fields = {name: flag.default for name, flag in slurm.FLAGS.items()}
    array = slurm.Array(fields | {"folder": str(tmp_path / "folder")}, str(tmp_path / "sweep"))
    array.check()
    with pytest.raises(ValueError, match="Slurm refuses the jobs: .*invalid partition"):
        array.submit()
    assert not (tmp_path / "folder").exists()


def test_a_deleted_directory_is_named(tmp_path, environment):
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'cd {gone} && rmdir {gone} && exec "$0" -m launch.status --workdir={tmp_path}'
    root = str(command.pathlib.Path(__file__).parents[2])
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable],
        env=environment | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "error: The current directory was deleted; change to one that is there.\n"


def test_the_stored_command_can_be_pasted(tmp_path, environment):
    name = "a 'b' $HOME; \"c\"\n"
    words = ["-m", "launch.sweep", DIGITS, "--config.grid.seed=0,", "--config.best=1"]
    words += ["--config.grid.batch_size=1024", "--config.grid.learning_rate=2^-3"]
    words += ["--config.run.num_epochs=1", "--lanes=1", "--microbatch=64", "--eval_batch=360"]
    words += ["--lane_devices=1", "--lanes_per_rare_step=1", f"--workdir={tmp_path / name}"]
    root = command.pathlib.Path(__file__).parents[2]
    run = {"env": environment, "capture_output": True, "text": True, "cwd": root}
    first = subprocess.run([sys.executable, *words], **run)
    assert first.returncode == 0, first.stderr
    assert os.listdir(tmp_path) == [name]
    stored = json.loads((tmp_path / name / "sweep.json").read_text())["command"]
    shell = f'python() {{ "{sys.executable}" "$@"; }}; {stored}'
    again = subprocess.run(["bash", "-c", shell], **run)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert os.listdir(tmp_path) == [name]

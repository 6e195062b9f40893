"""The command `noisegen`, as the clone has it and after `pip install` of the wheel."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

from noisegen.sweeps import advice, experiment
from tests.launch.harness import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Programs of a virtual environment in which the wheel is installed.

    The environment finds the packages that noisegen needs where this one has them, but not
    noisegen itself.
    """
    home = tmp_path_factory.mktemp("installed")
    source = home / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "noisegen", "launch"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--wheel-dir={home}", str(source)], check=True, timeout=200)
    [wheel] = home.glob("*.whl")
    shutil.rmtree(source)
    venv.create(home / "venv", with_pip=False)
    python = str(home / "venv" / "bin" / "python")
    install = [sys.executable, "-m", "pip", f"--python={python}", "--quiet", "install", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True, timeout=200)
    [packages] = (home / "venv").glob("lib/python*/site-packages")
    # A later place in the path: the installed noisegen comes first.
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "venv" / "bin"


@pytest.fixture(scope="module", params=["clone", pytest.param("wheel", marks=pytest.mark.slow)])
def run(request, environment, tmp_path_factory):
    """run(*words) runs `noisegen` in a directory that is empty at first."""
    directory = tmp_path_factory.mktemp("empty")
    program, variables = [sys.executable, "-m", "launch"], environment | {"PYTHONPATH": str(ROOT)}
    if request.param == "wheel":
        programs = request.getfixturevalue("installed")
        program, variables["PATH"] = ["noisegen"], f"{programs}:{os.environ['PATH']}"
        del variables["PYTHONPATH"]

    def run(*words):
        return subprocess.run(
            [*program, *words],
            cwd=directory,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )

    run.directory = directory
    return run


SMALL = (
    "--config.grid.batch_size=64,256",
    "--config.grid.learning_rate=2^-4,2^-3",
    "--config.run.num_epochs=1",
    "--pool.lanes=2",
    "--pool.lane_devices=1",
    "--pool.microbatch=64",
    "--pool.eval_batch=360",
    "--pool.lanes_per_rare_step=1",
)


def needs_wheel(test):
    """Marks a test of the wheel alone."""
    return pytest.mark.slow(pytest.mark.parametrize("run", ["wheel"], indirect=True)(test))


@needs_wheel
def test_an_experiment_is_begun_trained_and_reported(run):
    begun = run("init", "my_experiment.py")
    assert begun.returncode == 0, begun.stderr
    assert "noisegen sweep my_experiment.py" in begun.stdout
    done = run("sweep", "my_experiment.py", "--workdir=w", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "batch size" in done.stdout and "Report: w/report.html" in done.stdout
    status = run("status", "w")
    assert status.returncode == 0 and "Handwritten digits" in status.stdout, status.stderr
    report = run("report", "--workdir=w")
    assert (report.returncode, report.stdout) == (0, done.stdout), report.stderr
    assert {path.name for path in run.directory.iterdir()} == {"my_experiment.py", "w"}


@needs_wheel
def test_several_workers_train_it(run):
    run("init", "my_experiment.py")
    done = run("sweep", "my_experiment.py", "--workdir=workers", "--workers=2", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Report: workers/report.html" in done.stdout
    assert "noisegen sweep my_experiment.py" in (run.directory / "workers/sweep.json").read_text()


@needs_wheel
def test_the_template_itself_trains(run):
    """Without overrides, as the first steps of a new user."""
    run("init", "first.py")
    done = run("sweep", "first.py", "--workdir=first", "--config.run.num_epochs=1")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert rows == ["16", "64", "256", "1024"]


def test_the_template_can_be_advised(tmp_path):
    template = experiment.load_file(ROOT / "launch" / "template.py")
    advice.check(template.get_sweep(template.get_config(), str(tmp_path / "advised")), minutes=10)


def test_nothing_is_overwritten(run):
    run("init", "mine.py")
    (run.directory / "mine.py").write_text("# mine")
    again = run("init", "mine.py")
    assert again.returncode == 1 and again.stderr.startswith("error: mine.py exists")
    assert pathlib.Path(run.directory / "mine.py").read_text() == "# mine"


@pytest.mark.parametrize("words", [("sweeep",), ("--version",)])
def test_no_such_command_is_one_line(run, words):
    done = run(*words)
    assert done.returncode == 1 and done.stderr.startswith("error: no such command")


def test_help_lists_commands_and_flags(run):
    assert "noisegen init FILE.py" in run("--help").stdout
    shown = run("sweep", "--help").stdout
    assert "noisegen sweep " in shown and "python -m" not in shown
    for flag in ("--workdir", "--workers", "--pool.lanes", "--slurm.partition", "--ray.num_gpus"):
        assert flag in shown, shown


@pytest.mark.parametrize("words", [(), ("a.txt",), ("--force",), ("a.py", "b.py")])
def test_init_needs_the_name_of_one_file(run, words, tmp_path):
    done = run("init", *words)
    assert done.returncode == 1 and done.stderr.startswith("error: `noisegen init` needs one name")


@pytest.mark.parametrize("command", ["sweep", pytest.param("advise", marks=pytest.mark.slow)])
def test_without_the_packages_of_sweeps_the_remedy_is_named(command, environment, tmp_path):
    code = (
        "import runpy, sys; sys.modules['ml_collections'] = None; "  # as if not installed
        f"sys.argv[1:] = [{command!r}, 'mine.py']; runpy.run_module('launch', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: `noisegen {command}` needs the package ml_collections")
    assert "pip install '.[sweeps]'" in line

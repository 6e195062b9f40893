"""What the user can mend is one line that names the value and the remedy, and exit code 1."""

import concurrent.futures
import json
import os

import pytest
from absl import flags

from launch import cli, sweep
from noisegen import storage
from tests.launch.harness import last_error

DIGITS = "--config=experiments/digits.py"
GOES = (DIGITS, "--workdir={tmp}/never")

# By name: the module, its flags, and words of the one line.
CASES = {
    "data set": ("sweep", (*GOES, "--config.task.dataset=digit"), ["'digit'", "'digits'", "mnist"]),
    "data not prepared": (
        "sweep",
        (*GOES, "--config.task.dataset=mnist"),
        ["mnist is not prepared in", "python -m noisegen.data.tfds_prepare mnist --data_dir="],
    ),
    "convolution": (
        "sweep",
        (*GOES, "--config.convolution=fft"),
        ["convolution='fft'", "auto, patches, lax"],
    ),
    "no scales": (
        "sweep",
        ("--config={tmp}/plain.py:cpu", "--dry_run"),
        ["no scales", "leave the colon"],
    ),
    "no such scale": ("sweep", (DIGITS + ":tiny", "--dry_run"), ["'tiny'", "cpu"]),
    "no experiment": (
        "sweep",
        ("--config=experiments/scales.py", "--dry_run"),
        ["no get_config", "an experiment defines"],
    ),
    "field": (
        "sweep",
        (*GOES, "--config.run.momentm=0.5"),
        ["config.run.momentm", "config.run.momentum"],
    ),
    "value of a field": (
        "sweep",
        (*GOES, "--config.run.momentum=high"),
        ["momentum=high", "float"],
    ),
    "batch size 0": (
        "sweep",
        (*GOES, "--config.grid.batch_size=(64, 0)"),
        ["batch_size=0", "between 1 and the 1437 examples"],
    ),
    "batch size too large": (
        "sweep",
        (*GOES, "--config.grid.batch_size=(1438,)"),
        ["batch_size=1438", "batch_size=1437 is full-batch"],
    ),
    "learning rate NaN": (
        "sweep",
        (*GOES, "--config.grid.learning_rate=(nan, 0.1)"),
        ["learning_rate", "finite number", "nan"],
    ),
    "learning rate below 0": (
        "sweep",
        (*GOES, "--config.grid.learning_rate=(-0.1, 0.1)"),
        ["learning_rate=-0.1 is negative", "at least 0"],
    ),
    "number NaN": ("sweep", (*GOES, "--config.run.momentum=nan"), ["momentum", "finite", "nan"]),
    "horizon": (
        "sweep",
        (*GOES, "--config.run.num_epochs=0.001"),
        ["num_updates=0", "give more epochs"],
    ),
    "protocol": ("sweep", (*GOES, "--config.best=0"), ["best=0", "of=5"]),
    "microbatch": (
        "sweep",
        (
            DIGITS,
            "--workdir={tmp}/settings",
            "--pool.batch_devices=2",
            "--pool.lanes=1",
            "--pool.microbatch=17",
        ),
        ["error: --pool.microbatch=17", "multiple of --pool.batch_devices=2"],
    ),
    "devices": (
        "sweep",
        (DIGITS, "--workdir={tmp}/settings", "--pool.batch_devices=3"),
        ["batch_devices=3", "there are 2"],
    ),
    "workdir below a file": (
        "sweep",
        (DIGITS, "--workdir={tmp}/file/sweep"),
        ["--workdir={tmp}/file/sweep", "{tmp}/file is a file", "choose another directory"],
    ),
    **{
        f"{module} of a file": (
            module,
            (*flags, "--workdir={tmp}/file"),
            ["--workdir={tmp}/file", "{tmp}/file is a file", "choose another directory"],
        )
        for module, flags in (("sweep", (DIGITS,)), ("status", ()), ("report", ()))
    },
    "advice below a file": (
        "advise",
        (DIGITS, "--workdir={tmp}/file/sweep"),
        ["--workdir={tmp}/file/sweep", "{tmp}/file is a file", "choose another directory"],
    ),
    "name of a workdir": (
        "status",
        ("--workdir={tmp}/" + 300 * "a",),
        ["cannot be used: File name too long", "choose another directory"],
    ),
    "status of advice only": (
        "status",
        ("{tmp}/advised",),
        ["{tmp}/advised holds advice only", "train the sweep"],
    ),
    "unreadable sweep": (
        "report",
        ("{tmp}/unreadable",),
        ["error: {tmp}/unreadable/sweep.json cannot be read: Is a directory"],
    ),
    "workdir of another sweep": (
        "sweep",
        (DIGITS, "--workdir={tmp}/other"),
        ["{tmp}/other", "'other'", "not 'digits'", "give a new --workdir"],
    ),
    "dry run of another sweep": (
        "sweep",
        (DIGITS, "--workdir={tmp}/other", "--dry_run"),
        ["{tmp}/other", "'other'", "not 'digits'"],
    ),
    "size of a network": (
        "sweep",
        (*GOES, "--config.task.filters=0"),
        ["size of a layer must be at least 1", "(0, 1, 3, 3)"],
    ),
    "beyond float32": (
        "sweep",
        (*GOES, "--config.grid.learning_rate=(1e30, 1e39)"),
        ["learning_rate=1e+39", "beyond the float32 numbers"],
    ),
    "flag given twice": (
        "sweep",
        (*GOES, "--config.best=1", "--config.best=2"),
        ["--config.best is given twice"],
    ),
    "empty workdir": ("sweep", (DIGITS, "--workdir="), ["--workdir=", "sweeps/digits"]),
    "no workdir": ("sweep", (DIGITS,), ["--workdir=", "sweeps/digits"]),
    "format of an export": (
        "export",
        ("--workdir={tmp}/other", "--to=excel"),
        ["--to=excel", "csv|parquet|tensorboard|wandb|mlflow"],
    ),
    "no format": ("export", ("--workdir={tmp}/other",), ["Missing --to=", "csv, parquet"]),
    "export of no sweep": (
        "export",
        ("{tmp}/nothing", "--to=csv"),
        ["{tmp}/nothing", "no sweep.json"],
    ),
    "export to a file": (
        "export",
        ("--workdir=experiments/results/digits", "--to=csv", "--out={tmp}/file"),
        ["--out={tmp}/file cannot be used", "{tmp}/file is a file", "choose another directory"],
    ),
    "place of the data in compile": (
        "compile",
        (DIGITS, "--target=h100", "--pool.data=host"),
        ["--pool.data=host: the program is compiled", "on the device. Leave the flag out"],
    ),
    "no config": ("sweep", (), ["--config=", "experiments/digits.py"]),
    "no such experiment": (
        "sweep",
        ("--config=experiments/digit.py", "--workdir={tmp}/never"),
        ["experiments/digit.py", "experiments/"],
    ),
    "unknown flag": ("sweep", (*GOES, "--workdirr=x"), ["--workdirr", "--workdir?"]),
    "value of a flag": ("sweep", (*GOES, "--pool.lanes=two"), ["--pool.lanes=two", "int"]),
    "no number": (
        "sweep",
        (*GOES, "--heartbeat_timeout=nan"),
        ["error: --heartbeat_timeout=nan must be a number"],
    ),
    "share of several workers": (
        "sweep",
        (*GOES, "--workers=2", "--share=1/2"),
        ["--share is for a single worker", "--workers"],
    ),
    "target without a dry run": (
        "sweep",
        (*GOES, "--target=h100"),
        ["--target is for --dry_run"],
    ),
    "target that is no accelerator": (
        "sweep",
        (DIGITS, "--dry_run", "--target=h1000"),
        ["There is no target 'h1000'", "a100, h100 and h200"],
    ),
    "target with a launcher": (
        "sweep",
        (*GOES, "--dry_run", "--target=h100", "--launcher=slurm"),
        ["--target starts no workers: leave --launcher out"],
    ),
    "efficiency": (
        "sweep",
        (DIGITS, "--dry_run", "--target=h100", "--efficiency=30"),
        ["--efficiency=30.0 must be above 0 and at most 1"],
    ),
    "efficiency of no accelerator": (
        "sweep",
        (DIGITS, "--dry_run", "--efficiency=0.3"),
        ["--efficiency is for --target: give both, or neither"],
    ),
    "launcher": ("sweep", (*GOES, "--launcher=slrm"), ["--launcher=slrm", "local|slurm"]),
    "field of slurm": (
        "sweep",
        (*GOES, "--launcher=slurm", "--slurm.arry=2"),
        ["--slurm.arry", "--help"],
    ),
    "value of slurm": (
        "sweep",
        (*GOES, "--launcher=slurm", "--workers=0"),
        ["--workers=0", "at least 1"],
    ),
    "time of slurm": (
        "sweep",
        (*GOES, "--launcher=slurm", "--slurm.timeout_min=4h"),
        ["--slurm.timeout_min=4h", "int"],
    ),
    "workers on slurm": (
        "sweep",
        (*GOES, "--launcher=slurm", "--workers=auto"),
        ["--workers=auto", "give Slurm a number"],
    ),
    "slurm without a workdir": (
        "sweep",
        (DIGITS, "--launcher=slurm", "--dry_run"),
        ["--workdir=", "sweeps/digits"],
    ),
    "no flag": ("sweep", (DIGITS, "sweeps/digits"), ["'sweeps/digits'", "begin with --"]),
    "status without a sweep": (
        "status",
        ("--workdir={tmp}/none",),
        ["{tmp}/none", "sweep.json", "check the path"],
    ),
    "report of a damaged sweep": (
        "report",
        ("--workdir={tmp}/damaged",),
        ["{tmp}/damaged/sweep.json", "damaged", "delete that one file"],
    ),
    "status of a foreign file": (
        "status",
        ("--workdir={tmp}/foreign",),
        ["{tmp}/evil.py", "not below", "where the sweep was launched"],
    ),
}


@pytest.fixture(scope="module")
def outcomes(call, tmp_path_factory):
    """Every case, run."""
    tmp = tmp_path_factory.mktemp("bad_input")
    (tmp / "file").write_text("")
    (tmp / "advised" / "advice").mkdir(parents=True)
    (tmp / "unreadable" / "sweep.json").mkdir(parents=True)
    (tmp / "plain.py").write_text("def get_config(): ...\ndef get_sweep(config): ...\n")
    (tmp / "evil.py").write_text(f"open({str(tmp / 'executed')!r}, 'w')")
    for name, text in {
        "other": json.dumps({"sweep": "other", "task": "other"}),
        "damaged": "{",
        "foreign": json.dumps(
            dict.fromkeys(("sweep", "task", "config", "command"), "{}")
            | {"experiment": str(tmp / "evil.py")}
        ),
    }.items():
        (tmp / name).mkdir()
        (tmp / name / "sweep.json").write_text(text)

    def outcome(case):
        module, flags, words = case
        done = call(module, *(flag.format(tmp=tmp) for flag in flags))
        return done, [word.format(tmp=tmp) for word in words]

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        return tmp, dict(zip(CASES, executor.map(outcome, CASES.values()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_value_and_the_remedy(outcomes, name):
    done, words = outcomes[1][name]
    assert done.returncode == 1
    assert done.stdout == ""
    *before, line = done.stderr.splitlines()
    assert line.startswith("error: ") and not [s for s in before if not s.startswith("0/")]
    assert not [word for word in words if word not in line], line


def test_nothing_is_written_for_a_sweep_that_makes_no_sense(outcomes):
    tmp, _ = outcomes
    assert not (tmp / "never").exists()
    assert json.loads((tmp / "other" / "sweep.json").read_text())["sweep"] == "other"


def test_a_file_named_by_a_workdir_is_not_executed(outcomes):
    tmp, _ = outcomes
    assert not (tmp / "executed").exists()


def test_an_error_in_the_users_own_code_is_shown_with_its_place(call, tmp_path):
    experiment = tmp_path / "mine.py"
    experiment.write_text(
        "import ml_collections\n"
        "def get_config():\n    return ml_collections.ConfigDict({'seed': 0})\n"
        "def get_sweep(config):\n    return [{'seed': int('zero')}]\n"
    )
    flags = (f"--config={experiment}", f"--workdir={tmp_path}/never")
    line = last_error(call("sweep", *flags))
    assert "mine.py, line 5" in line and "'zero'" in line
    done = call("sweep", *flags, NOISEGEN_TRACEBACK="1")
    assert "Traceback" in done.stderr and "in get_sweep" in done.stderr
    assert done.stderr.splitlines()[-1] == line
    experiment.write_text(
        "def get_config():\n    return {'seed': 0}\ndef get_sweep(config):\n"
        "    raise ZeroDivisionError('division by zero') from KeyError('caught by a library')\n"
    )
    line = last_error(call("sweep", *flags))
    assert line.startswith("error: ZeroDivisionError: division by zero")
    assert "mine.py, line 4" in line and "NOISEGEN_TRACEBACK=1" in line
    done = call("sweep", *flags, NOISEGEN_TRACEBACK="1")
    assert "Traceback" in done.stderr and done.stderr.splitlines()[-1] == line


@pytest.fixture
def unprivileged():
    """Root may read every directory, and so becomes another user."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


@pytest.fixture
def closed(tmp_path):
    """A directory that nobody may read."""
    path = tmp_path / "closed"
    path.mkdir(mode=0)
    yield path
    path.chmod(0o700)


def test_a_workdir_without_permission_is_one_line(closed, unprivileged):
    for workdir in (closed, closed / "sweep"):
        with pytest.raises(cli.UsageError, match="cannot be used: Permission denied; choose"):
            cli.workdir(str(workdir))
        with pytest.raises(PermissionError, match="sweep.json cannot be read: Permission denied"):
            storage.read_sweep(workdir)
        with pytest.raises(PermissionError, match="choose a writable workdir"):
            storage.check_writable(workdir)


@pytest.mark.parametrize(
    "message, shown",
    [
        ("PoolConfig: lanes=0 must be", "--pool.lanes=0 must be"),
        ("PoolConfig: data='hots' must be", "--pool.data='hots' must be"),
        (
            "lane_devices=2 times batch_devices=4 need 8",
            "--pool.lane_devices=2 times --pool.batch_devices=4 need 8",
        ),
        (
            "Task 't': a state needs batch_devices=1.",
            "Task 't': a state needs --pool.batch_devices=1.",
        ),
        (
            "10 is not a multiple of model_devices=4.",
            "10 is not a multiple of --pool.model_devices=4.",
        ),
        (
            "hold it there (PoolConfig(data='device')), or",
            "hold it there (--pool.data=device), or",
        ),
        ("Run field lanes='a' must be", "Run field lanes='a' must be"),
        ("noise_microbatch=3 must be", "noise_microbatch=3 must be"),
        ("heartbeat_timeout=nan must be", "--heartbeat_timeout=nan must be"),
        ("a heartbeat_timeout=nan", "a heartbeat_timeout=nan"),
    ],
)
def test_messages_name_the_flags_of_settings(message, shown):
    assert "pool.lanes" in flags.FLAGS and sweep
    with pytest.raises(cli.UsageError) as caught, cli.usage_errors():
        raise ValueError(message)
    assert str(caught.value) == shown

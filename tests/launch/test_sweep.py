"""The commands on a sweep that nothing disturbs."""

import json
import os
import re
import subprocess

import jax
import pytest

from experiments import digits
from noisegen import storage, sweeps, training
from noisegen.sweeps import progress
from tests.launch.harness import ROOT, TINY, command

# Names are stable: the records of years ago stay readable.
MODEL = '{"dataset": "digits", "filters": 16, "hidden": 64}'
TASK = f"digits {MODEL} on digits 93b8b10e32de65a3"
REPORT = ("table.csv", "figure.png", "report.html")


def content(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_a_sweep_trains_prints_its_table_and_writes_the_report(finished):
    workdir, done = finished
    assert "batch size  test accuracy (%)  best learning rate" in done.stdout
    assert done.stdout.strip().endswith(f"Report: {workdir / 'report.html'}")
    assert all((workdir / name).stat().st_size for name in REPORT)
    records = storage.read_records(workdir)
    assert {record.status for record in records} == {"finished"}
    assert {record.hparams["num_epochs"] for record in records} == {3}
    assert all(len(record.curve["test_accuracy"]) == 3 for record in records)


def test_a_reader_that_has_seen_enough_is_no_error(finished, environment):
    enough, write = os.pipe()
    os.close(enough)
    words = command("status", f"--workdir={finished[0]}")
    done = subprocess.run(words, env=environment, stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""


def test_a_record_says_what_a_reader_must_know(finished):
    for record in storage.read_records(finished[0]):
        assert record.run_id == sweeps.run_id(TASK, record.hparams)
        assert record.hparams["momentum"] == 0.9 and record.diverged_at is None
        assert record.num_examples == record.num_updates * record.hparams["batch_size"]
        assert record.num_updates == 3 * 1437 // record.hparams["batch_size"]
        assert record.versions.keys() == {"noisegen", "jax", "flax", "optax"}
        assert record.settings["microbatch"] == 16 and record.device and record.seconds > 0
        assert record.curve["test_accuracy"][-1] == record.metrics["test_accuracy"] > 0.1
        assert "T" in record.finished_at and record.finished_at.endswith("+00:00")


def test_kept_parameters_are_those_that_were_evaluated(finished):
    workdir, _ = finished
    task = digits.make_task(digits.get_config())
    like = jax.eval_shape(task.init, training.make_key(0))[0]
    records = storage.read_records(workdir)
    assert len(list((workdir / "params").iterdir())) == len(records)
    for record in records[:3]:
        params = storage.load_params(workdir, record.run_id, like)
        found = training.evaluate_params(task, params)["test_accuracy"]
        assert float(found) == pytest.approx(record.metrics["test_accuracy"], abs=1e-6)


def test_away_from_a_terminal_progress_is_plain_lines(finished):
    _, done = finished
    first, *_, last = done.stderr.splitlines()
    assert first == "0/12 runs, compiling for 2 lanes, microbatch 16"  # all settings are given
    assert last.startswith("24/24 runs, ") and last.endswith(" examples/s")
    assert "\x1b" not in done.stderr and "backend" not in done.stderr


def test_the_grid_grows_where_the_optimum_is_at_its_edge(finished):
    workdir, done = finished
    rates = {
        size: sorted({r.hparams["learning_rate"] for r in storage.read_records(workdir)})
        for size in (64, 256)
    }
    assert rates[64] == [2.0**k for k in range(-8, -2)]  # three more, the most the protocol allows
    assert rates[256] == rates[64]
    said = [line for line in done.stderr.splitlines() if line.startswith("The grid is")]
    assert [line.count("at batch size 64 and 256.") for line in said] == [1, 1, 1]
    assert "the learning rate 2^-5 at batch size 64 and 256. There the largest" in said[0]


def test_the_same_command_again_trains_nothing_and_prints_the_same(finished, call):
    workdir, done = finished
    before = content(workdir)
    again = call("sweep", *TINY, "--keep_params", f"--workdir={workdir}")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert again.stderr == "24/24 runs\n"
    assert content(workdir) == before


def test_code_that_changed_under_finished_runs_is_told_every_time(finished, call):
    workdir, _ = finished
    path = workdir / "sweep.json"
    said = path.read_text()
    changed = json.loads(said) | {"code": "other"}
    del changed["crc32"]
    path.write_text(json.dumps(changed))
    for again in (call("sweep", *TINY, f"--workdir={workdir}") for _ in range(2)):
        told, _ = again.stderr.splitlines()
        assert again.returncode == 0
        assert (
            told.startswith("warning: ")
            and "experiments/digits.py, or a file that it imports, has changed" in told
        )
    path.write_text(said)


def test_status_and_report_need_the_workdir_only(finished, call):
    workdir, done = finished
    (workdir / "report.html").unlink()
    status, report = call("status", f"--workdir={workdir}"), call("report", f"--workdir={workdir}")
    assert (status.returncode, report.returncode) == (0, 0), status.stderr + report.stderr
    assert "24/24 runs" in status.stdout and "batch size" in status.stdout
    assert "missing" not in status.stdout
    assert report.stdout == done.stdout
    assert (workdir / "report.html").exists()


def test_a_report_prints_nothing_but_its_table_in_a_format_for_other_programs(finished, call):
    workdir, _ = finished
    csv = call("report", f"--workdir={workdir}", "--format=csv")
    assert csv.stdout == (workdir / "table.csv").read_text() and "Report: " in csv.stderr
    latex = call("report", f"--workdir={workdir}", "--format=latex")
    assert latex.stdout.startswith(r"\begin{tabular}") and "Report: " not in latex.stdout
    assert {path.name for path in workdir.glob("table*")} == {"table.csv"}


def test_a_dry_run_lists_the_runs_and_their_cost_and_trains_none(call, tmp_path):
    workdir = tmp_path / "none"
    flags = ("--dry_run", f"--workdir={workdir}", "--config.run.momentum=0.5")
    done = call("sweep", *TINY, *flags)
    *runs, cost, power, measuring, here = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(runs) == 12 and all(" momentum=0.5 " in run for run in runs)
    assert runs[0].startswith("batch_size=64 learning_rate=0.00390625 seed=0 ")
    # 67 and 16 updates: 6 runs of 64 * 67 examples, 6 of 256 * 16.
    assert cost == f"12 runs, {6 * 64 * 67 + 6 * 256 * 16:,} training examples."
    assert power.startswith("With 2 seeds a difference of ")
    assert measuring.startswith("Measuring how long") and here.startswith("About 0:0")
    assert not workdir.exists()


def test_a_dry_run_does_not_count_seeds_that_are_not_planned(call, tmp_path):
    experiment = tmp_path / "few_seeds.py"
    experiment.write_text(
        "from experiments import digits\n"
        "from noisegen import sweeps\n"
        "get_config = digits.get_config\n"
        "def get_sweep(config):\n"
        "    sweep = digits.get_sweep(config)\n"
        "    return sweep.replace(protocol=sweeps.Protocol(best=2, of=5))\n"
    )
    done = call("sweep", f"--config={experiment}", *TINY[1:], "--dry_run")
    assert done.returncode == 0 and "With 2 seeds a difference of " in done.stdout
    assert "asks for 5 seeds" in done.stderr


def test_a_dry_run_estimates_the_time_on_an_accelerator(call):
    flags = [flag for flag in TINY if "--pool" not in flag]
    done = call("sweep", *flags, "--dry_run", "--target=h100", "--efficiency=1e-6")
    *_, estimate, remedy = done.stdout.splitlines()
    assert done.returncode == 0 and "Measuring" not in done.stdout
    found = re.match(r"About ([0-9:]+) on h100, at an efficiency of 1e-06 \(assumed\)", estimate)
    bound = re.search(r"convolutions, ([0-9,]+) examples/s", estimate)
    examples = 6 * 64 * 67 + 6 * 256 * 16
    seconds = examples / (1e-6 * float(bound[1].replace(",", "")))
    assert found[1] == progress.duration(seconds) and seconds > 1
    assert remedy.startswith("`pip install '.[aot-cuda]'`")


def test_a_dry_run_of_a_race_gives_a_range(call, tmp_path):
    flags = [flag for flag in TINY if "learning_rate" not in flag]
    flags += ["--config.grid.learning_rate=2^-8,2^-7,2^-6,2^-5,2^-4", "--config.search=race"]
    done = call("sweep", *flags, "--dry_run", f"--workdir={tmp_path}")
    *runs, cost, _, _, here = done.stdout.splitlines()
    # The race begins with a seed of the middle value and of those beside it, at batch size 64.
    assert len(runs) == 3 and all("batch_size=64 " in run and "seed=0" in run for run in runs)
    # At least both seeds of one value and one of each value beside it, at most 2 * 5 * 2 runs.
    assert cost.startswith("These 3 runs begin the race. In all it takes about 10 to 20 runs, ")
    assert cost.endswith(f" to {10 * 64 * 67 + 10 * 256 * 16:,} training examples.")
    assert here.startswith("About 0:0") and " to 0:" in here


@pytest.mark.parametrize("field", ["config", "command", "experiment", "title"])
def test_the_workdir_says_what_it_is(finished, field):
    workdir, _ = finished
    said = json.loads((workdir / "sweep.json").read_text())[field]
    wanted = {
        "config": '"num_epochs": 3.0',
        "command": "python -m launch.sweep --config=experiments/digits.py",
        "experiment": "experiments/digits.py",
        "title": "How large can the batch be?",
    }
    assert wanted[field] in said

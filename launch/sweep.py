"""Trains the runs of an experiment that have no record yet, and writes the report.

    python -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits

Any field of the config is overridden by a flag such as --config.run.momentum=0.5. Stopped by
anything, the same command goes on where it was.
"""

import pathlib
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from launch import command, display, experiment
from noisegen import reports, sweeps, training

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment's file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep: records and report.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the runs and what they cost, train none.")
_SPEED = {
    name: flags.DEFINE_integer(name, None, f"Speed setting {name}; measured by default.")
    for name in ("lanes", "microbatch", "lane_devices", "batch_devices", "eval_batch", "group")
}
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Trains the sweep of --config in --workdir."""
    command.no_arguments(argv)
    path = flags.FLAGS["config"].config_filename
    plan = experiment.load(path, _CONFIG.value)
    command.prepare_devices()
    if _DRY_RUN.value:
        dry_run(plan, _WORKDIR.value)
    elif _WORKDIR.value is None:
        raise ValueError("Say where the records go: --workdir=DIRECTORY.")
    else:
        sweep(plan, _WORKDIR.value)


def sweep(plan: experiment.Experiment, workdir: str) -> None:
    """Trains the runs without a record and those the protocol calls for; writes the report."""
    task = plan.make_task()
    said = shlex.join(["python", *sys.orig_argv[1:]])
    sweeps.open_workdir(workdir, plan.name, task.name, experiment.meta(plan, said))
    records = sweeps.read(workdir, curves=False)
    show = display.Display(plan.protocol, _examples(task, _wanted(plan, task, records)), records)
    pool = None
    try:
        with sweeps.RecordWriter(workdir) as writer, show:
            while todo := _todo(plan, task, records):
                if pool is None:
                    settings, _ = _settings(task, todo)
                    pool = training.Pool(task, settings)
                show.expect(_examples(task, todo))
                for result in pool.train(todo, show.progress):
                    record = command.record(task, settings, result)
                    writer.append(record)
                    records.append({name: record[name] for name in record if name != "curve"})
                    show.add(record)
    except KeyboardInterrupt:
        done = f"{len(records)} records are in {workdir}"
        raise SystemExit(
            f"Stopped; {done}. To go on, give the same command again:\n  {said}"
        ) from None
    report = reports.write_report(workdir, plan.protocol, plan.runs, plan.published)
    print(pathlib.Path(workdir, "table.txt").read_text())
    print(f"Report: {report}")


def dry_run(plan: experiment.Experiment, workdir: str | None) -> None:
    """Prints the runs that would be trained, and an estimate of what they cost on this machine."""
    task = plan.make_task()
    records = sweeps.read(workdir, curves=False) if workdir else []
    todo = _todo(plan, task, records)
    for run in todo:
        print(" ".join(f"{name}={value}" for name, value in run.items()))
    if not todo:
        print("Every run has its record.")
        return
    examples = sum(_examples(task, todo).values())
    settings, seconds = _settings(task, todo)
    print(
        f"{len(todo)} runs, {examples:,} training examples; about {display.duration(seconds)} here "
        f"at the {examples / seconds:,.0f} examples/s just measured, evaluations left out "
        f"({settings.lanes} lanes, microbatch {settings.microbatch})."
    )


def _settings(task, runs):
    """Measured speed settings, those given as flags kept, and the predicted seconds of the runs."""
    given = {name: flag.value for name, flag in _SPEED.items() if flag.value is not None}
    return training.choose(task, runs, **given)


def _wanted(plan, task, records):
    """The planned runs and those that the records call for."""
    runs = plan.runs + sweeps.extension(records, plan.protocol, plan.runs)
    return list(sweeps.plan(task.name, runs).values())


def _todo(plan, task, records):
    """The wanted runs that have no record."""
    done = {record["run_id"] for record in records}
    wanted = sweeps.plan(task.name, _wanted(plan, task, records))
    return [run for name, run in wanted.items() if name not in done]


def _examples(task, runs):
    """Training examples of each run, by run_id."""
    plans = training.plan_runs(task, runs)
    names = sweeps.plan(task.name, runs)
    return {name: plan.num_examples for name, plan in zip(names, plans, strict=True)}


if __name__ == "__main__":
    command.run(main)

"""Trains the runs of an experiment that have no record yet, and writes the report.

    python -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits

Any field of the config is overridden by a flag such as --config.run.momentum=0.5. Stopped by
anything, the same command goes on where it was.
"""

import dataclasses
import shlex
import sys
import warnings

from absl import flags
from ml_collections import config_flags

from launch import agenda, command, display, experiment
from noisegen import sweeps, training

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment's file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep: records and report.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the runs and what they cost, train none.")
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 5.0, "Minutes between checkpoints of the runs in training; 0: none.", 0.0
)
_KEEP_PARAMS = flags.DEFINE_bool(
    "keep_params", False, "Keep the parameters of the runs that end, for what is measured of them."
)
_SPEED = {
    field.name: flags.DEFINE_integer(
        field.name, None, f"Speed setting {field.name}; by default measured.", 1, 2**31 - 1
    )
    for field in dataclasses.fields(training.Settings)
    if field.type is int
} | {
    "precision": flags.DEFINE_enum(
        "precision",
        None,
        training.PRECISIONS,
        "Precision of matrix products; by default the device's own.",
    )
}


def main(argv: list[str]) -> None:
    """Trains the sweep of --config in --workdir."""
    command.no_arguments(argv)
    command.required(_CONFIG, "an experiment's file, such as experiments/digits.py")
    if not _DRY_RUN.value:
        command.required(_WORKDIR, "the directory for records and report, such as sweeps/digits")
    exp = experiment.load(flags.FLAGS["config"].config_filename, _CONFIG.value)
    if _DRY_RUN.value:
        dry_run(exp, _WORKDIR.value)
        return
    try:
        sweep(exp, _WORKDIR.value)
    except KeyboardInterrupt:
        print(
            f"Stopped; finished runs and the last checkpoint of others are kept in "
            f"{_WORKDIR.value}. To go on, give the same command again:\n"
            f"  {shlex.join(sys.orig_argv)}",
            file=sys.stderr,
        )
        sys.exit(command.INTERRUPTED)


def sweep(exp: experiment.Experiment, workdir: str) -> None:
    """Trains the runs without a record, and those that the records call for; writes the report."""
    tasks = exp.make_tasks()
    runs = _agenda(exp, tasks, workdir)
    tasks.check(runs.wanted, exp.protocols)
    meta = experiment.meta(exp, tasks.source, shlex.join(["python", *sys.orig_argv[1:]]))
    begun = experiment.begun_with(workdir) or exp.code
    if begun != exp.code:
        warnings.warn(
            f"{exp.path}, or what it imports, has changed since {workdir} was begun, whose "
            "finished runs are kept; if it trains something else now, change the task's name.",
            stacklevel=1,
        )
    sweeps.open_workdir(workdir, exp.name, tasks.name, meta | {"code": begun})
    _train(exp, tasks, runs, workdir)
    if _KEEP_PARAMS.value and (without := sweeps.without_params(workdir, runs.wanted)):
        warnings.warn(
            f"{len(without)} runs had finished before --keep_params was given, and their "
            "parameters are not kept; a new --workdir keeps those of all.",
            stacklevel=1,
        )
    command.report(exp, workdir)


def dry_run(exp: experiment.Experiment, workdir: str | None) -> None:
    """Prints the runs that would be trained, and an estimate of what they cost on this machine."""
    tasks = exp.make_tasks()
    todo = _agenda(exp, tasks, workdir).todo()
    if not todo:
        print("Every run has its record.")
        return
    examples = sum(tasks.examples(todo).values())
    for run in todo.values():
        print(" ".join(f"{name}={value}" for name, value in run.items()))
    print(f"{len(todo):,} runs, {examples:,} training examples.")
    if rate := exp.config.get("gpu_examples_per_second"):
        print(f"{examples / rate / 3600:,.2f} GPU-hours at the {rate:,} examples/s assumed.")
    print("Measuring how long they take here; for a large network this takes minutes.", flush=True)
    measured = [_settings(task, group) for task, group in tasks.groups(todo).items()]
    seconds = sum(each for _, each in measured)
    settings = " or ".join(
        sorted({f"{s.lanes} lanes, microbatch {s.microbatch}" for s, _ in measured})
    )
    print(
        f"About {display.duration(seconds)} here at the {examples / seconds:,.0f} examples/s just "
        f"measured ({settings}); compilation, evaluations and further runs, if the grid has to "
        "grow, left out."
    )


def _agenda(exp, tasks, workdir):
    """The runs of the sweep, and which are done."""
    records = []
    if workdir is not None:
        sweeps.check_workdir(workdir, exp.name, tasks.name)
        records = sweeps.read(workdir, curves=False)
    return agenda.Agenda(tasks.name, exp.runs, exp.protocols, records)


def _train(exp, tasks, runs, workdir):
    """Trains until every wanted run has its record."""
    tally = display.Tally(exp.protocols[0], len(runs.wanted), runs.done())
    pool = None
    with (
        sweeps.RecordWriter(workdir) as writer,
        _checkpoints(tasks, runs, workdir) as checkpoints,
        display.Display(exp.title, tally) as show,
    ):
        if known := checkpoints.known(runs.todo()):
            count = f"{len(known)} of {len(runs.todo())} runs"
            show.note(f"{count} have a checkpoint, from which they go on.")
        while todo := runs.todo():
            show.expect(tasks.examples(todo))
            for task, group in tasks.groups(todo).items():
                if pool is None or pool.task is not task:
                    pool = _pool(task, group, show)
                for result in pool.train(
                    list(group.values()), show.progress, checkpoints, _KEEP_PARAMS.value
                ):
                    record = command.record(task, pool.settings, result)
                    if result.params is not None:
                        sweeps.save_params(workdir, record["run_id"], result.params)
                    writer.append(record)
                    runs.add(record)
                    show.add(record)
            runs.extend()
            if further := runs.todo():
                show.note(display.growth(exp.protocols[0], further.values()))


def _checkpoints(tasks, runs, workdir):
    seconds = 60 * _CHECKPOINT_MINUTES.value
    return sweeps.Checkpoints(workdir, tasks.name, seconds, runs.records.keys())


def _pool(task, runs, show):
    """A pool with the settings that suit the runs."""
    show.say("measuring what is fastest here")
    settings, _ = _settings(task, runs)
    show.say(f"compiling for {settings.lanes} lanes, microbatch {settings.microbatch}")
    return training.Pool(task, settings)


def _settings(task, runs):
    """Measured speed settings, those given as flags kept, and the predicted seconds of the runs."""
    given = {name: flag.value for name, flag in _SPEED.items() if flag.value is not None}
    return training.choose(task, list(runs.values()), **given)


if __name__ == "__main__":
    command.run(main)

"""Trains the runs of an experiment that have no record yet, and writes the report.

    python -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits

Any field of the config is overridden by a flag such as --config.run.momentum=0.5. Stopped by
anything, the same command goes on where it was. With --launcher=slurm it submits jobs that do so,
with --launcher=ray the workers are tasks of Ray; their flags are in --helpfull.
"""

import contextlib
import dataclasses
import json
import math
import shlex
import sys
import warnings

import jax
from absl import flags

from launch import (
    agenda,
    begin,
    command,
    display,
    distributed,
    experiment,
    jobs,
    ledger,
    local,
    on_ray,
    ray_plan,
    slurm,
    streams,
    worker,
)
from noisegen import sweeps, training

_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "The experiment's file or module; --config.NAME=VALUE overrides a field of its config.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep: records and report.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the runs and what they cost, train none.")
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 5.0, "Minutes between checkpoints of the runs in training; 0: none.", 0.0
)
_KEEP_PARAMS = flags.DEFINE_bool(
    "keep_params", False, "Keep the parameters of the runs that end, for what is measured of them."
)
_LAUNCHER = flags.DEFINE_enum(
    "launcher",
    "local",
    ["local", "slurm", "ray"],
    "Where the workers run: in this process, or on this host with --workers; in jobs that Slurm is "
    "given; or as tasks of Ray.",
)
_WORKERS = flags.DEFINE_string(
    "workers",
    "",
    "Number of workers on this host, or 'auto': one for each accelerator or group "
    "of processor cores.",
)
_SHARE = flags.DEFINE_string(
    "share", "0/1", "INDEX/COUNT: the share of the runs with which this worker begins."
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    "",
    "Spread this worker over processes: 'auto' under Slurm, or HOST:PORT,INDEX/COUNT.",
)
_ONLY = flags.DEFINE_list(
    "only", [], "Train these runs only, by run_id, and leave: what launchers tell their workers."
)
_TIED = flags.DEFINE_bool(
    "tied", False, "Stop when standard input ends: what launchers tell their workers."
)
_PREDICT = flags.DEFINE_bool(
    "predict", False, "Measure for a launcher what --share costs here; train nothing."
)
_REPORT = flags.DEFINE_bool("report", True, "Write the report in the end.")
_PATIENCE = flags.DEFINE_float(
    "patience", 300.0, "Seconds of silence after which another worker is taken for dead.", 1.0
)
_SPEED = {
    field.name: flags.DEFINE_integer(
        field.name, None, f"Speed setting {field.name}; by default measured.", 1, 2**31 - 1
    )
    for field in dataclasses.fields(training.PoolConfig)
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
    command.no_arguments(argv, overrides=True)
    command.required(_CONFIG, "an experiment's file, such as experiments/digits.py")
    workdir = command.workdir(_WORKDIR)
    if not (_DRY_RUN.value or _PREDICT.value) or _LAUNCHER.value == "slurm":
        command.required(_WORKDIR, "the directory for records and report, such as sweeps/digits")
    _prepare()
    exp = experiment.read(_CONFIG.value, command.overrides())
    if _DRY_RUN.value:
        dry_run(exp, workdir)
    elif _PREDICT.value:
        predict(exp, workdir)
    else:
        try:
            sweep(exp, workdir)
        except KeyboardInterrupt:
            print(
                f"Stopped; finished runs and the last checkpoint of others are kept in "
                f"{workdir}. To go on, give the same command again:\n"
                f"  {shlex.join(sys.orig_argv)}",
                file=sys.stderr,
            )
            command.leave(command.INTERRUPTED)


def sweep(exp: experiment.Experiment, workdir: str) -> None:
    """Trains the runs without a record, and those that the records call for; writes the report.

    On Slurm it submits jobs that do so and returns, unless all is done.
    """
    array = _array(workdir)
    if array:
        array.check()
    places = local.places(_WORKERS.value) if _WORKERS.value else None
    tasks = exp.make_tasks()
    if jax.process_index():
        distributed.follow(tasks, _KEEP_PARAMS.value)
        return
    sweeps.check_workdir(workdir, exp.name, tasks.name)
    book = ledger.Ledger(exp, tasks, workdir, _KEEP_PARAMS.value)
    _check(exp, tasks, book, workdir)
    meta = experiment.meta(exp, tasks.source, _command(workdir))
    begun = experiment.begun_with(workdir) or exp.code
    if begun != exp.code:
        warnings.warn(
            f"{exp.path}, or what it imports, has changed since {workdir} was begun, whose "
            "finished runs are kept; if it trains something else now, change the task's name.",
            stacklevel=1,
        )
    with contextlib.ExitStack() as stack:
        driver = None
        if _LAUNCHER.value == "ray":
            driver = on_ray.Driver(book, workdir, ray_plan.Options.parse())
            stack.enter_context(driver)
        if _REPORT.value:  # else another process has begun it
            stack.enter_context(begin.undone_if_refused(workdir))
        sweeps.open_workdir(workdir, exp.name, tasks.name, meta | {"code": begun})
        if array and book.runs.todo():
            submit(array, workdir)
            return
        if driver:
            driver.run()
        elif places:
            local.Workers(book, workdir, places, _PATIENCE.value).run()
        else:
            worker.Worker(book, workdir, _options()).run()
    if _KEEP_PARAMS.value and (without := sweeps.without_params(workdir, book.runs.wanted)):
        warnings.warn(
            f"{len(without)} runs had finished before --keep_params was given, and their "
            "parameters are not kept; a new --workdir keeps those of all.",
            stacklevel=1,
        )
    if _REPORT.value:
        command.report_at_end(exp, workdir)


def submit(array: slurm.Array, workdir: str) -> None:
    """Submits jobs that train the sweep, and says how to follow them."""
    if waiting := jobs.waiting(workdir):
        warnings.warn(
            f"Jobs of this sweep have yet to end ({jobs.several(waiting)}); the new ones help.",
            stacklevel=1,
        )
    job = array.submit()
    asks = shlex.join(["python", "-m", "launch.status", f"--workdir={workdir}"])
    print(
        f"Submitted Slurm job {job}; what it prints goes to {array.logs(job)}.\n"
        f"How far it is says\n  {asks}\nWhen all is done, the command just given writes the report."
    )


def predict(exp: experiment.Experiment, workdir: str | None) -> None:
    """Prints what a worker with this one's share of the runs needs here, as JSON."""
    tasks = exp.make_tasks()
    found = worker.predict(tasks, _todo(exp, tasks, workdir), _options())
    print(json.dumps(found), flush=True)


def dry_run(exp: experiment.Experiment, workdir: str | None) -> None:
    """Prints what would be trained, and an estimate of what it costs; or what Slurm is given."""
    if array := _array(workdir):
        print(f"{array.text()}\nEach job runs\n  {shlex.join(array.command('INDEX'))}")
        return
    tasks = exp.make_tasks()
    todo = _todo(exp, tasks, workdir)
    if not todo:
        print("Every run has its record.")
        return
    costs = tasks.examples(todo)
    examples = sum(costs.values())
    for run in todo.values():
        print(" ".join(f"{name}={shlex.quote(str(value))}" for name, value in run.items()))
    print(f"{len(todo):,} runs, {examples:,} training examples.")
    if rate := exp.config.get("gpu_examples_per_second"):
        print(f"{examples / rate / 3600:,.2f} GPU-hours at the {rate:,} examples/s assumed.")
    if _LAUNCHER.value == "ray":
        print(on_ray.plan(costs, ray_plan.Options.parse()))
        return
    print("Measuring how long they take here; for a large network this takes minutes.")
    if streams.lost():
        return  # as no reader is left
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


def _prepare():
    """What must come before JAX is first used, and before anything is written."""
    worker.Share.parse(_SHARE.value)
    for flag in (_PATIENCE, _CHECKPOINT_MINUTES):  # bounds, which the flags have, let it through
        if math.isnan(flag.value):
            raise ValueError(f"--{flag.name}={flag.value} must be a number.")
    if _WORKERS.value and _SHARE.present:
        raise ValueError("--share is for a single worker: leave it or --workers.")
    if _LAUNCHER.value != "local":
        if _WORKERS.value:
            raise ValueError(
                f"--workers is for this host: leave it or --launcher={_LAUNCHER.value}."
            )
        jax.config.update("jax_platforms", "cpu")  # accelerators are left to the workers
    if _DISTRIBUTED.value and (_WORKERS.value or _LAUNCHER.value != "local"):
        raise ValueError("--distributed is for a single worker: leave --workers and --launcher.")
    if _TIED.value:
        command.stop_with_input()
    if _DISTRIBUTED.value:
        distributed.join(_DISTRIBUTED.value)
    if not _WORKERS.value:  # which have the devices for themselves
        command.check_devices()


def _check(exp, tasks, book, workdir):
    """Refuses what makes no sense before anything is written or trained."""
    tasks.check(book.runs.wanted, exp.protocols)
    if _REPORT.value:
        command.check_report(exp)
    _check_speed()
    known = book.runs.wanted.keys() | book.runs.records.keys()
    unknown = [name for name in _ONLY.value if name not in known]
    if unknown and not _TIED.value:  # a launcher may know records that are not here yet
        raise ValueError(
            f"--only={','.join(unknown)}: this sweep has no such run; run_ids are in its records."
        )
    begin.check_writable(workdir)


def _check_speed():
    """Checks the given speed settings, as far as the others play no part."""
    given = _given_speed()
    lanes, batch = (given.get(name, 1) for name in ("lane_devices", "batch_devices"))
    training.PoolConfig(**({"lanes": lanes, "microbatch": batch, "eval_batch": batch} | given))
    here = _LAUNCHER.value == "local" and not _WORKERS.value
    if here and lanes * batch > jax.device_count():
        raise ValueError(
            f"--lane_devices={lanes} times --batch_devices={batch} is {lanes * batch} devices; "
            f"there are {jax.device_count()}."
        )


def _array(workdir):
    """The jobs of the sweep, where it is Slurm's."""
    if _LAUNCHER.value != "slurm":
        return None
    return slurm.Array({n: flag.value for n, flag in slurm.FLAGS.items()}, workdir)


def _todo(exp, tasks, workdir):
    """The runs without a record."""
    records = []
    if workdir is not None:
        sweeps.check_workdir(workdir, exp.name, tasks.name)
        records = sweeps.read(workdir, curves=False)
    return agenda.Agenda(tasks.name, exp.runs, exp.protocols, records, tasks.plan).todo()


def _command(workdir):
    """The command that began the sweep: this one, unless another has started this worker."""
    if not _REPORT.value and experiment.begun_with(workdir):
        return sweeps.read_sweep(workdir)["command"]
    return shlex.join(["python", *sys.orig_argv[1:]])


def _options():
    return worker.Options(
        share=worker.Share.parse(_SHARE.value),
        only=_ONLY.value,
        speed=_given_speed(),
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
        keep_params=_KEEP_PARAMS.value,
        patience=_PATIENCE.value,
    )


def _settings(task, runs):
    """Measured speed settings, those given as flags kept, and the predicted seconds of the runs."""
    return training.autotune(task, list(runs.values()), **_given_speed())


def _given_speed():
    return {name: flag.value for name, flag in _SPEED.items() if flag.value is not None}


if __name__ == "__main__":
    command.run(main)

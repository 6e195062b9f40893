"""Trains the runs of an experiment that have no record yet, and writes the report.

    python -m launch.sweep experiments/digits.py --workdir=sweeps/digits

A flag such as --config.run.momentum=0.5 overrides a field of the experiment's config. If anything
stops the sweep, the same command resumes it. With --workers=4 four processes train it, with
--launcher=slurm jobs, and with --launcher=ray tasks of Ray.
"""

import re
import shlex
import sys

import jax
from absl import flags

from noisegen import hardware, statistics, storage, training
from noisegen._errors import one_line
from noisegen._text import count
from noisegen.sweeps import Sweep
from noisegen.sweeps.progress import Display, duration
from noisegen.sweeps.worker import WorkerOptions

from . import cli, config_flags, local, multihost, ray, report, slurm, streams, worker
from .cli import UsageError
from .driver import Driver, WorkerCommand

flags.adopt_module_key_flags(cli)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "List the runs and their cost, or what Slurm would be given; train none."
)
_TARGET = flags.DEFINE_string(
    "target",
    None,
    "Accelerator for which --dry_run estimates the time, such as h100, h100:8 or v5e:2x4.",
)
_EFFICIENCY = flags.DEFINE_float(
    "efficiency",
    None,
    "Share of the bound of the accelerator that training is assumed to reach: by default "
    f"{hardware.EFFICIENCY[True]} if its compiler is installed, else {hardware.EFFICIENCY[False]}.",
)
_WORKERS = flags.DEFINE_string(
    "workers",
    None,
    "Number of workers, or 'auto' for as many as fit: one for each accelerator or group of cores "
    "of this host, or as many as a Ray cluster can run. By default this process is the worker, "
    "Slurm gets one job, and Ray is 'auto'.",
)
_LAUNCHER = flags.DEFINE_enum(
    "launcher", "local", ["local", "slurm", "ray"], "Program that starts the workers."
)
_SHARE = flags.DEFINE_string(
    "share", None, "INDEX/COUNT: the share of the runs with which this worker begins."
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    None,
    "Spread this worker over processes: 'auto' under Slurm or MPI, or HOST:PORT,INDEX/COUNT.",
)
_REPORT = flags.DEFINE_bool("report", True, "Write the report at the end.")
_worker = config_flags.define(
    "", WorkerOptions, ("checkpoint_minutes", "keep_params", "heartbeat_timeout")
)
_pool = config_flags.define("pool.", training.PoolConfig, optional=True)
_slurm = config_flags.define("slurm.", slurm.SlurmConfig)
_ray = config_flags.define("ray.", ray.RayConfig)


def main(argv: list[str]) -> None:
    """Trains the sweep of an experiment in --workdir."""
    sweep, options = _read(argv)
    if _DRY_RUN.value:
        dry_run(sweep, options)
        return
    try:
        train(sweep, options)
    except KeyboardInterrupt:
        if not sweep.workdir.exists():
            cli.stopped("Stopped before anything was trained.")
        kept = f"finished runs and the last checkpoint of others are kept in {sweep.workdir}"
        cli.stopped(f"Stopped; {kept}.")


def train(sweep: Sweep, options: WorkerOptions) -> None:
    """Trains the runs of a sweep that have no record, and writes the report.

    On Slurm it submits jobs that train them and returns, unless all have a record.
    """
    if multihost.is_follower():
        multihost.follow(sweep, options)
        return
    starter = _check(sweep, options)
    with sweep.begun(options.keep_params, _user_command(sweep)):
        if isinstance(starter, slurm.SlurmArray):
            submit(starter, sweep)
            return
        if starter:
            Driver(sweep, starter, Display(sweep)).run()
        else:
            worker.make_worker(sweep, options).run()
    if _REPORT.value:
        report.write_at_end(sweep)


def submit(array: slurm.SlurmArray, sweep: Sweep) -> None:
    """Submits jobs that train the sweep, and prints how to follow them."""
    job = array.submit()
    status = shlex.join([*cli.command("status"), f"--workdir={sweep.workdir}"])
    print(
        f"Submitted Slurm job {job}; its output goes to {array.logs(job)}.\n"
        f"To see the progress:\n  {status}\n"
        "When all runs are trained, the same command as now writes the report."
    )


@cli.usage_errors()
def dry_run(sweep: Sweep, options: WorkerOptions) -> None:
    """Prints the runs that would be trained with their cost, or what Slurm would be given."""
    if _LAUNCHER.value == "slurm":
        print(_slurm_array(_command(sweep, options)).describe())
        return
    target = _TARGET.value and hardware.find_target(_TARGET.value)
    # A CPU takes minutes to call a large network, which is checked before it is trained.
    sweep.validate(mixing=False)
    todo = sweep.state.todo()
    if not todo:
        print("Every run has its record.")
        return
    # In a form that can be searched and counted: one run a line.
    for run in todo.values():
        words = [f"{name}={shlex.quote(str(value))}" for name, value in run.hparams.items()]
        print(" ".join(words))
    examples = [_num_examples(todo)]
    if sweep.state.is_race:
        least, most = _race_range(sweep)
        examples = [_num_examples(least), _num_examples(most)]
        print(
            f"These {len(todo):,} runs begin the race. In all it takes about {len(least):,} to"
            f" {len(most):,} runs, {examples[0]:,} to {examples[1]:,} training examples."
        )
    else:
        print(f"{count(len(todo), 'run')}, {examples[0]:,} training examples.")
    sweep.warn_of_few_seeds()
    _print_power(sweep)
    if target:
        _print_bounded_duration(sweep, target, options)
        return
    if _LAUNCHER.value == "ray":
        executor = _ray_executor(_command(sweep, options))
        print(executor.describe())
        executor.stop()
        return
    _print_duration(sweep, todo, examples, options)


def _race_range(sweep):
    """Returns the fewest and the most runs that a race may take, apart from extensions.

    Both are by run_id, without those that have a record.
    """
    done = sweep.state.records_by_id
    return [
        {name: run for name, run in runs.items() if name not in done}
        for runs in (sweep.state.fewest_runs(), sweep.state.most_runs())
    ]


def _print_power(sweep):
    """Prints the least difference between two rows that the seeds will show."""
    planned = len({run.get("seed", 0) for run in sweep.planned})
    seeds = min(planned, *(protocol.of for protocol in sweep.protocols))
    if seeds < 2:
        print("One seed shows no noise, so no difference can be told from chance.")
        return
    least = statistics.least_difference(1.0, seeds)
    print(
        f"With {seeds} seeds a difference of {least:.1f} standard deviations of a run is seen four"
        " times out of five."
    )


def _num_examples(runs):
    return sum(run.plan.num_examples for run in runs.values())


def _print_bounded_duration(sweep, target, options):
    """Prints the time that a sweep takes on an accelerator at a share of its greatest speed.

    Args:
      sweep: The sweep.
      target: The accelerator.
      options: Options of the workers.
    """
    ranges = _race_range(sweep) if sweep.state.is_race else [sweep.state.todo()]
    by_task = [sweep.state.by_task(runs) for runs in ranges]
    is_compiled = hardware.is_installed(target)
    efficiency = _EFFICIENCY.value or hardware.EFFICIENCY[is_compiled]
    bounds = {}  # examples in a second, by task
    for task, runs in by_task[-1].items():
        bounds[task] = hardware.bound_speed(task, next(iter(runs.values())), target, options.pool)
    seconds = [
        sum(_num_examples(runs) / (efficiency * bounds[task]) for task, runs in groups.items())
        for groups in by_task
    ]
    durations = " to ".join(map(duration, seconds))
    program = "compiled program" if is_compiled else "matrix products and convolutions"
    rates = " or ".join(dict.fromkeys(f"{bound:,.0f}" for bound in bounds.values()))
    print(
        f"About {durations} on {target.name}, at an efficiency of {efficiency:g} (assumed) of the"
        f" bound by its {program}, {rates} examples/s, without evaluations and extensions of the"
        " grid."
    )
    if not is_compiled:
        print(
            f"`{hardware.install_command(target)}`, in an environment of its own, gives a"
            " tighter bound: that of the compiled program."
        )


def _print_duration(sweep, todo, examples, options):
    """Measures some runs here, and prints how long all of them take.

    Args:
      sweep: The sweep.
      todo: The runs to measure, by run_id.
      examples: Training examples of all runs, or the fewest and the most that there may be.
      options: Options of the workers.
    """
    print("Measuring how long they take here; for a large network this takes minutes.")
    if streams.lost():  # no reader is left, so nobody waits for the measurement
        return
    # The tasks of different batch sizes may be fastest with different settings.
    seconds, settings = 0.0, set()
    for task, runs in sweep.state.by_task(todo).items():
        config, expected = training.autotune(task, list(runs.values()), **options.pool)
        seconds += expected
        settings.add(f"{count(config.lanes, 'lane')}, microbatch {config.microbatch}")
    rate = _num_examples(todo) / seconds
    durations = " to ".join(duration(each / rate) for each in examples)
    print(
        f"About {durations} here at the {rate:,.0f} examples/s just measured "
        f"({' or '.join(sorted(settings))}), without compilation, evaluations and extensions of "
        "the grid."
    )


@cli.usage_errors()
def _read(argv):
    """Reads the command line and the experiment; returns the sweep and the workers' options."""
    options = _options()
    experiment, config = cli.read_experiment(argv, _prepare_jax)
    workdir = None
    if cli.WORKDIR.value or not _DRY_RUN.value or _LAUNCHER.value == "slurm":
        workdir = cli.workdir(cli.WORKDIR.value)
    return experiment.get_sweep(config, workdir), options


def _options():
    """Returns the options of the workers."""
    share = (0, 1)
    if _SHARE.value is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", _SHARE.value)
        if match is None or int(match[1]) >= int(match[2]):
            raise UsageError(
                f"--share={_SHARE.value} must be INDEX/COUNT with INDEX below COUNT, such as 0/8."
            )
        share = int(match[1]), int(match[2])
    return WorkerOptions(share=share, pool=_pool(), **_worker())


def _starts_workers():
    """Returns whether other processes train, rather than this one."""
    return _WORKERS.value is not None or _LAUNCHER.value != "local"


def _prepare_jax():
    """Refuses flags that exclude each other, then chooses the devices of this process."""
    _check_target_flags()
    if _WORKERS.value is not None:
        local.parse_workers(_WORKERS.value)
    if _starts_workers():
        for flag in (_SHARE, _DISTRIBUTED):
            if flag.value is not None:
                raise UsageError(
                    f"--{flag.name} is for a single worker: leave it out, or --workers and "
                    "--launcher."
                )
    if _TARGET.value:
        # JAX can store programs for other hardware, but cannot read them again.
        jax.config.update("jax_enable_compilation_cache", False)
    if _LAUNCHER.value != "local" or _TARGET.value:
        jax.config.update("jax_platforms", "cpu")  # accelerators are left to the workers
    if _DISTRIBUTED.value:  # before the devices, which are then those of all processes
        multihost.join(_DISTRIBUTED.value)
    if not _starts_workers():
        cli.check_devices()


def _check_target_flags():
    """Refuses --target and --efficiency without a dry run, or out of their range."""
    for flag in (_TARGET, _EFFICIENCY):
        if flag.value is not None and not _DRY_RUN.value:
            raise UsageError(f"--{flag.name} is for --dry_run: give both, or neither.")
    if _EFFICIENCY.value is not None and not _TARGET.value:
        raise UsageError("--efficiency is for --target: give both, or neither.")
    if _EFFICIENCY.value is not None and not 0 < _EFFICIENCY.value <= 1:
        raise UsageError(f"--efficiency={_EFFICIENCY.value} must be above 0 and at most 1.")
    if _TARGET.value:
        hardware.find_target(_TARGET.value)
        if _LAUNCHER.value != "local":
            raise UsageError("--target starts no workers: leave --launcher out.")


@cli.usage_errors()
def _check(sweep, options):
    """Checks everything before anything is written.

    Returns:
      The Slurm jobs, or the executor, that start the workers; None if this process is the worker
      or nothing is left to train.
    """
    # Mistakes that are found quickly come first.
    command, array, slots = _command(sweep, options), None, None
    if _LAUNCHER.value == "slurm":
        array = _slurm_array(command)
        array.check()
    # To validate the sweep uses JAX, which from here on leaves the accelerators to the workers.
    if _LAUNCHER.value == "local" and _WORKERS.value is not None:
        slots = local.detect_slots(_WORKERS.value)
    sweep.validate()
    cli.check_pool(options.pool, is_here=not _starts_workers())
    if _REPORT.value:
        _check_report(sweep)
    if not sweep.state.todo():  # the report can be written without Slurm or Ray
        return None
    if _LAUNCHER.value == "ray":
        return _ray_executor(command)
    return local.LocalExecutor(command, slots) if slots else array


def _command(sweep, options):
    """Returns the command of the workers that other programs start."""
    experiment = sweep.origin.experiment
    return WorkerCommand(workdir=str(sweep.workdir), experiment=experiment, options=options)


def _slurm_array(command):
    """Returns the Slurm jobs of the sweep."""
    num_workers = local.parse_workers(_WORKERS.value or "1")
    if num_workers is None:
        raise UsageError("--workers=auto is for this host and Ray; give Slurm a number.")
    return slurm.SlurmArray(command, slurm.SlurmConfig(**_slurm()), num_workers)


def _ray_executor(command):
    """Returns an executor that is connected to the Ray cluster."""
    num_workers = local.parse_workers(_WORKERS.value or "auto")
    return ray.RayExecutor(command, ray.RayConfig(**_ray()), num_workers)


def _check_report(sweep):
    """Checks that a report can be made. The user's own functions may raise anything."""
    try:
        sweep.validate_report()
    except Exception as error:
        experiment = sweep.origin.experiment
        raise UsageError(f"{experiment}: no report could be made: {one_line(error)}") from error


def _user_command(sweep):
    """Returns the command that begins the sweep, for `sweep.json`.

    A command with --noreport, such as a worker with a --share, keeps the command that is there.
    """
    if not _REPORT.value and (sweep.workdir / "sweep.json").exists():
        return storage.read_sweep(sweep.workdir).get("command", "")
    words = sys.orig_argv[1:]
    if cli.is_installed():
        return shlex.join(["noisegen", *words[1:]])
    return shlex.join(["python", *words])


if __name__ == "__main__":
    cli.run(main)

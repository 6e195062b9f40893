"""Trains the runs of an experiment that have no record yet, and writes the report.

    python -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits

A flag such as --config.run.momentum=0.5 overrides a field of the experiment's config. If anything
stops the sweep, the same command resumes it. With --workers=4 four processes train it, with
--launcher=slurm jobs, and with --launcher=ray tasks of Ray.
"""

import pathlib
import re
import shlex
import sys

import jax
from absl import flags

from noisegen import storage, training
from noisegen.sweeps import Sweep
from noisegen.sweeps.experiment import Experiment, load_experiment
from noisegen.sweeps.progress import Display, duration
from noisegen.sweeps.worker import WorkerOptions

from . import cli, config_flags, local, multihost, ray, report, slurm, streams, worker
from .driver import Driver, WorkerCommand

flags.adopt_module_key_flags(cli)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "List the runs and their cost, or what Slurm would be given; train none."
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
_KEEP_PARAMS = flags.DEFINE_bool("keep_params", False, "Keep the parameters of runs that end.")
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 5.0, "Minutes between checkpoints of the runs in training, 0 for none."
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_float(
    "heartbeat_timeout", 300.0, "Seconds without a heartbeat after which a worker counts as dead."
)
_pool = config_flags.define("pool", training.PoolConfig, optional=True)
_slurm = config_flags.define("slurm", slurm.SlurmConfig)
_ray = config_flags.define("ray", ray.RayConfig)


def main(argv: list[str]) -> None:
    """Trains the sweep of an experiment in --workdir."""
    name = _experiment_name(argv)
    workdir = cli.workdir(required=not _DRY_RUN.value or _LAUNCHER.value == "slurm")
    options = _options()
    _prepare()
    experiment = load_experiment(name)
    config = experiment.get_config()
    config_flags.override(config, cli.overrides())
    sweep = experiment.get_sweep(config, workdir)
    if _DRY_RUN.value:
        dry_run(sweep, config, options)
        return
    try:
        train(experiment, sweep, options)
    except KeyboardInterrupt:
        print(
            f"Stopped; finished runs and the last checkpoint of others are kept in {workdir}. To "
            f"resume, give the same command again:\n  {shlex.join(sys.orig_argv)}",
            file=sys.stderr,
        )
        cli.leave(cli.INTERRUPTED)


def train(experiment: Experiment, sweep: Sweep, options: WorkerOptions) -> None:
    """Trains the runs of a sweep that have no record, and writes the report.

    On Slurm it submits jobs that train them and returns, unless all have a record.
    """
    if multihost.is_follower():
        multihost.follow(sweep, options)
        return
    command = _worker_command(sweep, options)
    array = _slurm_array(command)
    if array:
        array.check()
    # To validate the sweep uses JAX, which from here on leaves the accelerators to the workers.
    slots = _local_slots()
    sweep.validate()
    _check_pool(options.pool)
    if _REPORT.value:
        _check_report(experiment, sweep)
    executor = _executor(command, slots) if sweep.state.todo() else None
    with sweep.begun(options.keep_params, _user_command(sweep)):
        if array and sweep.state.todo():
            submit(array, sweep)
            return
        if executor:
            Driver(sweep, command, executor, Display(sweep)).run()
        else:
            worker.make_worker(sweep, options).run()
    if _REPORT.value:
        report.write_at_end(sweep)


def submit(array: slurm.SlurmArray, sweep: Sweep) -> None:
    """Submits jobs that train the sweep, and prints how to follow them."""
    job = array.submit()
    status = shlex.join(["python", "-m", f"{__package__}.status", f"--workdir={sweep.workdir}"])
    print(
        f"Submitted Slurm job {job}; its output goes to {array.logs(job)}.\n"
        f"To see the progress:\n  {status}\n"
        "When all runs are trained, the same command as now writes the report."
    )


def dry_run(sweep: Sweep, config, options: WorkerOptions) -> None:
    """Prints the runs that would be trained with their cost, or what Slurm would be given."""
    if _LAUNCHER.value == "slurm":
        command = _worker_command(sweep, options)
        print(_slurm_array(command).describe())
        return
    sweep.validate()
    todo = sweep.state.todo()
    if not todo:
        print("Every run has its record.")
        return
    for run in todo.values():
        words = [f"{name}={shlex.quote(str(value))}" for name, value in run.hparams.items()]
        print(" ".join(words))
    examples = sum(run.plan.num_examples for run in todo.values())
    print(f"{len(todo):,} runs, {examples:,} training examples.")
    rate = config.get("gpu_examples_per_second")
    if rate:
        print(f"{examples / rate / 3600:,.2f} GPU-hours at the {rate:,} examples/s assumed.")
    if _LAUNCHER.value == "ray":
        executor = _executor(_worker_command(sweep, options))
        print(executor.describe())
        executor.stop()
        return
    _print_duration(sweep, todo, options)


def _print_duration(sweep, todo, options):
    """Measures and prints how long some runs take here."""
    print("Measuring how long they take here; for a large network this takes minutes.")
    if streams.lost():  # no reader is left
        return
    seconds, settings = 0.0, set()
    for task, runs in sweep.state.by_task(todo).items():
        config, expected = training.autotune(task, list(runs.values()), **options.pool)
        seconds += expected
        settings.add(f"{config.lanes} lanes, microbatch {config.microbatch}")
    examples = sum(run.plan.num_examples for run in todo.values())
    print(
        f"About {duration(seconds)} here at the {examples / seconds:,.0f} examples/s just measured "
        f"({' or '.join(sorted(settings))}), without compilation, evaluations and extensions of "
        "the grid."
    )


def _experiment_name(argv):
    """Returns the experiment that --config or the first word names."""
    if cli.CONFIG.value is None and len(argv) > 1:
        cli.no_arguments(argv[1:])
        return argv[1]
    cli.no_arguments(argv)
    if not cli.CONFIG.value:
        raise ValueError("Missing --config=..., an experiment, such as experiments/digits.py.")
    return cli.CONFIG.value


def _options():
    """Returns the options of the workers."""
    share = (0, 1)
    if _SHARE.value is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", _SHARE.value)
        if match is None or int(match[1]) >= int(match[2]):
            raise ValueError(
                f"--share={_SHARE.value} must be INDEX/COUNT with INDEX below COUNT, such as 0/8."
            )
        share = int(match[1]), int(match[2])
    return WorkerOptions(
        share=share,
        pool=_pool(),
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
        keep_params=_KEEP_PARAMS.value,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT.value,
    )


def _starts_workers():
    """Returns whether other processes train, rather than this one."""
    return _WORKERS.value is not None or _LAUNCHER.value != "local"


def _prepare():
    """Checks flags that exclude each other, and prepares JAX before it is first used."""
    if _WORKERS.value is not None:
        local.parse_workers(_WORKERS.value)
    if _starts_workers():
        for flag in (_SHARE, _DISTRIBUTED):
            if flag.value is not None:
                raise ValueError(
                    f"--{flag.name} is for a single worker: leave it out, or --workers and "
                    "--launcher."
                )
    if _LAUNCHER.value != "local":
        jax.config.update("jax_platforms", "cpu")  # accelerators are left to the workers
    if _DISTRIBUTED.value:
        multihost.join(_DISTRIBUTED.value)
    if not _starts_workers():
        cli.check_devices()


def _worker_command(sweep, options):
    """Returns the command of the workers that other programs start."""
    experiment = sweep.origin.experiment
    return WorkerCommand(workdir=str(sweep.workdir), experiment=experiment, options=options)


def _slurm_array(command):
    """Returns the jobs of the sweep, or None if Slurm is not to start the workers."""
    if _LAUNCHER.value != "slurm":
        return None
    num_workers = local.parse_workers(_WORKERS.value or "1")
    if num_workers is None:
        raise ValueError("--workers=auto is for this host and Ray; give Slurm a number.")
    return slurm.SlurmArray(command, slurm.SlurmConfig(**_slurm()), num_workers)


def _local_slots():
    """Returns the slots of workers on this host, or None if there are to be none."""
    if _LAUNCHER.value == "local" and _WORKERS.value is not None:
        return local.detect_slots(_WORKERS.value)
    return None


def _executor(command, slots=None):
    """Returns the executor that starts the workers, or None if this process is the worker."""
    if _LAUNCHER.value == "ray":
        config = ray.RayConfig(**_ray())
        return ray.RayExecutor(command, config, local.parse_workers(_WORKERS.value or "auto"))
    return None if slots is None else local.LocalExecutor(command, slots)


def _check_pool(given):
    """Checks the given settings of the pool by themselves; others are yet to be measured."""
    lanes, batch = given.get("lane_devices", 1), given.get("batch_devices", 1)
    training.PoolConfig(**{"lanes": lanes, "microbatch": batch, "eval_batch": batch, **given})
    if not _starts_workers() and lanes * batch > jax.device_count():
        raise ValueError(
            f"--pool.lane_devices={lanes} times --pool.batch_devices={batch} is {lanes * batch} "
            f"devices; there are {jax.device_count()}."
        )


def _check_report(experiment, sweep):
    try:
        sweep.validate_report()
    except Exception as error:  # of the user's functions, which label the report
        raise ValueError(
            f"{experiment.path}: no report could be made: {cli.explained(error)}"
        ) from error


def _user_command(sweep):
    """Returns the command that begins the sweep, for `sweep.json`.

    A command with --noreport, such as a worker with a --share, keeps the command that is there.
    """
    if not _REPORT.value and (sweep.workdir / "sweep.json").exists():
        return storage.read_sweep(sweep.workdir).get("command", "")
    words = sys.orig_argv[1:]
    if pathlib.Path(words[0]).name == "noisegen":  # the installed command
        return shlex.join(["noisegen", *words[1:]])
    return shlex.join(["python", *words])


if __name__ == "__main__":
    cli.run(main)

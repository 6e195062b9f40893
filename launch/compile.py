"""Compiles the program of an experiment for an accelerator that you do not have.

    python -m launch.compile experiments/smith2020/table1.py:gpu --target=h100

Says whether it compiles and fits the memory, and bounds the examples in a second from above. It
takes the first run of the sweep, or that of --run. Nothing is trained. The compilers need packages
of their own: `pip install '.[aot-cuda]'` for GPUs, `pip install '.[aot-tpu]'` for TPUs.
"""

from collections.abc import Mapping

import jax
from absl import flags

from noisegen import hardware, training
from noisegen._text import count
from noisegen.training import Run
from noisegen.training.sources import is_source

from . import cli, config_flags

jax.config.update("jax_platforms", "cpu")  # No accelerator is looked for.
# JAX can store programs for other hardware, but cannot read them again.
jax.config.update("jax_enable_compilation_cache", False)

flags.adopt_module_key_flags(cli)
_TARGET = flags.DEFINE_string(
    "target", None, "The accelerator: h100, h200 or a100, as in h100:8 for eight; v5e:2x4, v6e:1."
)
_RUN = flags.DEFINE_integer("run", 0, "Index of the run among those of a dry run.", lower_bound=0)
_pool = config_flags.define("pool.", training.PoolConfig, optional=True)

_SHOWN = 6  # kinds of kernels


def main(argv: list[str]) -> None:
    """Prints what the compiled program of an experiment says about itself."""
    cli.show(_report(argv))


@cli.usage_errors()
def _report(argv: list[str]) -> str:
    if _TARGET.value is None:
        raise cli.UsageError("Name the accelerator, as in --target=h100.")
    target = hardware.find_target(_TARGET.value)
    experiment, config = cli.read_experiment(argv, cli.check_devices)
    sweep = experiment.get_sweep(config)
    if _RUN.value >= len(sweep.planned):
        last = len(sweep.planned) - 1
        raise cli.UsageError(
            f"--run={_RUN.value}: there is no such run; give one from 0 to {last}."
        )
    task = sweep.task_of(sweep.planned[_RUN.value])
    _check_place(task, _pool().get("data"))
    # Nothing is trained, and a CPU takes minutes to call a large network.
    [run] = training.make_runs(task, [sweep.planned[_RUN.value]], mixing=False)
    pool = hardware.default_config(task, run, target.num_devices, _pool())
    return describe(run, hardware.compile_program(task, run, pool, target))


def _check_place(task: training.Task, place: str | None) -> None:
    """Refuses a place of the data for which the program is not compiled."""
    compiled = "host" if is_source(task.train) else "device"
    if place not in (None, compiled):
        raise cli.UsageError(
            f"--pool.data={place}: the program is compiled with arrays on the device and sources "
            f"on the host, so here with the training set on the {compiled}. Leave the flag out."
        )


def describe(run: Run, compiled: hardware.Compilation) -> str:
    """Returns what a compilation found, in lines for a terminal."""
    target, step, config = compiled.target, compiled.micro_step, compiled.config
    update = compiled.update
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in compiled.seconds.items())
    fits = "fits" if compiled.memory <= target.memory else "DOES NOT FIT"
    products = ", ".join(f"{number} of {dtype}" for dtype, number in step.products.items())
    lines = [
        f"Run: {', '.join(f'{name}={value}' for name, value in run.hparams.items())}",
        f"Target: {target.name}, {count(target.num_devices, 'device')}; lanes"
        f" {config.lanes}, microbatch {config.microbatch}",
        f"Compiled: {seconds}",
        f"Memory of a device: {compiled.memory / 1e9:.3g} of {target.memory / 1e9:.3g} GB, {fits}",
        f"Host callbacks: {compiled.callbacks}; 64-bit types: {_listed(compiled.wide_types)}",
        f"Collectives in a micro-step: {_counts(step.collectives)}; in an update:"
        f" {_counts(update.collectives)}",
        f"A micro-step of a device: {step.examples:,} examples,"
        f" {count(step.kernels, 'kernel')}, {step.bytes / 1e9:.3g} GB",
        f"An update: {count(update.kernels, 'kernel')}, {update.bytes / 1e9:.3g} GB",
        f"Products and convolutions: {products or 'none'}; {step.flops / step.examples:.4g} FLOP"
        f" an example ({compiled.expected_flops / step.examples:.4g} before optimization, with all"
        " other operations)",
        f"Bound: {compiled.bound:,.0f} examples/s at most, by",
    ]
    shares = list(step.contributions.items())
    for kind, part in shares[:_SHOWN]:
        lines.append(f"  {100 * part / step.seconds:4.1f} %  {kind}")
    rest = sum(part for _, part in shares[_SHOWN:])
    lines.append(f"  {100 * rest / step.seconds:4.1f} %  other kernels")
    if step.estimated_seconds:
        rate = compiled.num_groups * step.examples / step.estimated_seconds
        lines.append(f"The compiler's own estimate: {rate:,.0f} examples/s")
    return "\n".join(lines)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _counts(collectives: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in collectives.items()) or "none"


if __name__ == "__main__":
    cli.run(main)

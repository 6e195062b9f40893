"""Predicts the answers of a sweep over batch sizes from short runs, before it is trained.

    python -m launch.advise experiments/digits.py --workdir=sweeps/digits --minutes=3

The short runs go to the directory `advice` in --workdir. If anything stops them, the same command
resumes them. A flag such as --config.run.momentum=0.5 overrides a field of the experiment's config.
"""

import shlex
import sys

from absl import flags

from noisegen import reports, training
from noisegen.reports import answers
from noisegen.sweeps import Sweep, advise
from noisegen.sweeps.experiment import load_experiment

from . import cli, config_flags
from .cli import UsageError

flags.adopt_module_key_flags(cli)
_MINUTES = flags.DEFINE_float("minutes", 10.0, "Minutes that the short runs may take.")
_pool = config_flags.define("pool.", training.PoolConfig, optional=True)


def main(argv: list[str]) -> None:
    """Prints what short runs predict for the sweep of an experiment."""
    sweep, overrides = _read(argv)
    try:
        with cli.usage_errors():
            found = advise(sweep, _MINUTES.value, pool=_pool())
    except KeyboardInterrupt:
        print(
            "Stopped; finished runs are kept. To resume, give the same command again:\n"
            f"  {shlex.join(sys.orig_argv)}",
            file=sys.stderr,
        )
        cli.leave(cli.INTERRUPTED)
    cli.show(answers.to_text(reports.advice_answers(found, _full_command(sweep, overrides))))


@cli.usage_errors()
def _read(argv: list[str]) -> tuple[Sweep, list[str]]:
    """Returns the sweep of the command line, and the flags that override its config."""
    words = [word for word in argv[1:] if not word.startswith("-")]
    overrides = [word for word in argv[1:] if word.startswith("-")]
    name = cli.CONFIG.value or next(iter(words), None)
    if not name:
        raise UsageError("Missing --config=..., an experiment, such as experiments/digits.py.")
    cli.check_devices()
    experiment = load_experiment(name)
    config = experiment.get_config()
    cli.flag_or_word(cli.CONFIG, config_flags.override(config, argv))
    return experiment.get_sweep(config, cli.workdir(cli.WORKDIR.value)), overrides


def _full_command(sweep: Sweep, overrides: list[str]) -> str:
    """Returns the command that trains the full sweep, as a race if its config lets one choose."""
    words = [
        *cli.command("sweep"),
        f"--config={sweep.origin.experiment}",
        f"--workdir={sweep.workdir}",
        *overrides,
    ]
    has_search = "search" in sweep.origin.config
    if has_search and not any(word.startswith("--config.search=") for word in overrides):
        words.append("--config.search=race")
    return shlex.join(words)


if __name__ == "__main__":
    cli.run(main)

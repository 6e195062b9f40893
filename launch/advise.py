"""Predicts the answers of a sweep over batch sizes from short runs, before it is trained.

    python -m launch.advise experiments/digits.py --workdir=sweeps/digits --minutes=3

The short runs go to the directory `advice` in --workdir. If anything stops them, the same command
resumes them. A flag such as --config.run.momentum=0.5 overrides a field of the experiment's config.
"""

import shlex

from absl import flags

from noisegen import reports, training
from noisegen.reports import answers
from noisegen.sweeps import Sweep, advice, short_races

from . import cli, config_flags
from .cli import UsageError

flags.adopt_module_key_flags(cli)
_MINUTES = flags.DEFINE_float("minutes", 10.0, "About how many minutes the short runs may take.")
_pool = config_flags.define("pool.", training.PoolConfig, optional=True)


def main(argv: list[str]) -> None:
    """Prints what short runs predict for the sweep of an experiment."""
    sweep, pool = _read(argv)
    try:
        # Outside of `usage_errors`, as it trains.
        found = advice.advise(sweep, _MINUTES.value, pool=pool)
    except short_races.TooFewMinutesError as error:
        raise UsageError(str(error).replace("minutes=", "--minutes=")) from error
    except KeyboardInterrupt:
        cli.stopped("Stopped; finished runs are kept.")
    overrides = [word for word in argv[1:] if word.startswith("-")]
    cli.show(answers.to_text(reports.advice_answers(found, _full_command(sweep, overrides))))


@cli.usage_errors()
def _read(argv: list[str]) -> tuple[Sweep, dict]:
    """Reads and checks everything; returns the sweep and the given settings of the pool."""
    experiment, config = cli.read_experiment(argv, cli.check_devices)
    sweep = experiment.get_sweep(config, cli.workdir(cli.WORKDIR.value))
    pool = _pool()
    cli.check_pool(pool)
    advice.check(sweep, _MINUTES.value)
    return sweep, pool


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

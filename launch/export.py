"""Exports the runs of a sweep to tables or to a tool that tracks experiments.

    python -m launch.export sweeps/digits --to=csv

The formats are csv, parquet, tensorboard, wandb and mlflow. Runs that were exported before are left
alone, so the command can be given again at any time. With --follow it goes on until the sweep is
complete.
"""

from absl import flags

from noisegen import export
from noisegen._text import count
from noisegen.sweeps import Sweep

from . import cli

_TO = flags.DEFINE_enum("to", None, list(export.FORMATS), "Format or tool to export to.")
_OUT = flags.DEFINE_string("out", None, "Directory to export to, by default export/ in --workdir.")
_FOLLOW = flags.DEFINE_boolean("follow", False, "Go on until the sweep is complete.")
flags.adopt_module_key_flags(cli)

# What to do with what was written.
_NEXT = {
    "tensorboard": "tensorboard --logdir={out}",
    "wandb": "wandb sync {out}/wandb/offline-run-*",
    "mlflow": "mlflow ui --backend-store-uri=sqlite:///{out}/mlflow.db",
}


@cli.usage_errors()
def main(argv: list[str]) -> None:
    """Exports the sweep in --workdir."""
    if not _TO.value:
        raise cli.UsageError(f"Missing --to=..., one of {', '.join(export.FORMATS)}.")
    sweep = cli.open_sweep(argv)
    out = sweep.workdir / "export" / _TO.value
    if _OUT.value:
        out = cli.directory("--out", _OUT.value)
    try:
        total = export.export(
            sweep, _TO.value, out, follow=_FOLLOW.value, on_update=lambda _: _show_progress(sweep)
        )
    except KeyboardInterrupt:
        cli.stopped("Stopped; exported runs are kept.")
    found = count(len(sweep.records()), "run")
    cli.show(f"Exported {count(total, 'run')} to {out}; {found} of the sweep have a record.")
    if _TO.value in _NEXT:
        cli.show(f"To look at them:\n  {_NEXT[_TO.value].format(out=out)}")


def _show_progress(sweep: Sweep) -> None:
    """Says how far a running sweep is."""
    if _FOLLOW.value:
        done, wanted = len(sweep.state.records()), len(sweep.state.wanted)
        cli.show(f"{done:,}/{wanted:,} runs")


if __name__ == "__main__":
    cli.run(main)

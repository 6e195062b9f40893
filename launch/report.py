"""Writes a sweep's table and page again from its records, finished or not.

python -m launch.report sweeps/digits --format=latex
python -m launch.report sweeps/digits --serve
"""

import shlex
import sys

from absl import flags

from noisegen import reports
from noisegen._errors import one_line
from noisegen.sweeps import Sweep

from . import cli, serve

_FORMAT = flags.DEFINE_enum(
    "format", "text", list(reports.FORMATS), "Format in which the tables are printed."
)
_SERVE = flags.DEFINE_flag(
    flags.Flag(
        serve.PortParser(),
        None,
        "serve",
        None,
        "Show the page on this machine and write it again when records arrive, until Ctrl-C: "
        f"--serve at port {serve.PORT}, or --serve=PORT; 0 takes any free port.",
        boolean=True,  # for absl, a flag that needs no value
    )
)
flags.adopt_module_key_flags(cli)


@cli.usage_errors()
def main(argv: list[str]) -> None:
    """Writes the report of the sweep in --workdir, and prints its table."""
    sweep = cli.open_sweep(argv)
    if _SERVE.value is None:
        write(sweep, _FORMAT.value)
        return
    # A port that is taken is found out before the report is written.
    with serve.Server(_SERVE.value) as server:
        write(sweep, _FORMAT.value)
        server.follow(sweep)


def write(sweep: Sweep, form: str = "text") -> None:
    """Writes the report of a sweep and prints its tables.

    Args:
      sweep: The sweep.
      form: Format of the printed tables, one of `reports.FORMATS`.
    """
    report = reports.load_report(sweep)
    page = report.write()
    tables = "\n".join(report.tables(form))
    missing = report.describe_missing()
    if form == "text":
        answers = "\n\n".join(report.answer_texts())
        cli.show(
            "\n".join(
                [
                    *([answers, ""] if answers else []),
                    tables,
                    *([missing] if missing and report.records else []),  # The table says so, too.
                    f"Report: {page}",
                ]
            )
        )
    else:  # is often piped into a file, which is to hold the tables only
        cli.show(tables.removesuffix("\n"))
        if missing:
            print(missing, file=sys.stderr)
        print(f"Report: {page}", file=sys.stderr)


def write_at_end(sweep: Sweep) -> None:
    """Writes the report of a sweep that is trained.

    Raises:
      UsageError: If it cannot be written. The message says how it can be written later.
    """
    try:
        write(sweep)
    except Exception as error:  # the user's own functions, which label the report, raise any
        again = shlex.join([*cli.command("report"), f"--workdir={sweep.workdir}"])
        raise cli.UsageError(
            f"All runs are trained and kept in {sweep.workdir}, but the report cannot be written: "
            f"{one_line(error).removesuffix('.')}. When that is corrected, run: {again}"
        ) from error


if __name__ == "__main__":
    cli.run(main)

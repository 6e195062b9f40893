"""Measures every part that has no record yet in --out, and prints the table of all.

    python -m experiments.benchmarks --out=experiments/results/benchmarks \
        --torch_python=DIRECTORY/bin/python

PyTorch stays out of the project's environment: --torch_python is the interpreter of another one
that has torch and numpy. Without it the comparison leaves PyTorch out. To measure a part again,
delete its record. Leave the machine alone meanwhile.
"""

import json
import pathlib
import shlex
import sys

from absl import flags

from experiments.benchmarks import bulk, first_record, host_overhead, machine, mnist, report
from launch import command
from noisegen import sweeps

PARTS = {
    "mnist": mnist,
    "first_record": first_record,
    "host_overhead": host_overhead,
    "bulk": bulk,
}

_OUT = flags.DEFINE_string("out", None, "Directory of the records and the table.")
_ONLY = flags.DEFINE_list("parts", list(PARTS), f"Parts to measure: {', '.join(PARTS)}.")
_QUICK = flags.DEFINE_bool("quick", False, "A miniature that only shows that everything runs.")
_ROUNDS = flags.DEFINE_integer("rounds", None, "Repetitions; by default 2.", lower_bound=1)
_TORCH = flags.DEFINE_string("torch_python", None, "An interpreter that has torch and numpy.")


def main(argv: list[str]) -> None:
    """Measures, then prints."""
    command.no_arguments(argv)
    if unknown := set(_ONLY.value) - set(PARTS):
        raise ValueError(f"--parts={','.join(sorted(unknown))}: expected some of {list(PARTS)}.")
    rounds = _ROUNDS.value or (1 if _QUICK.value else 2)
    out = pathlib.Path(command.required(_OUT, "the directory of the records and the table"))
    options = machine.Options(_QUICK.value, rounds, _TORCH.value)
    out.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        if name in _ONLY.value:
            _measure(name, options, out / f"{name}.json")
    text = report.markdown(PARTS, {name: _read(out / f"{name}.json") for name in PARTS})
    sweeps.write_file(out / "README.md", text)
    print(text, end="")


def _measure(name, options, path):
    """Measures one part, unless its record exists."""
    if path.exists():
        machine.say(f"{name}: measured before; delete {path} to measure it again")
        return
    machine.say(f"{name}: {PARTS[name].TITLE}")
    record = machine.describe(shlex.join(["python", *sys.orig_argv[1:]]), options)
    record |= PARTS[name].measure(options)
    sweeps.write_file(path, json.dumps(record, indent=1) + "\n")


def _read(path):
    return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    command.run(main)

"""Measures every part that has no record yet in --out, and prints the table of all.

    python -m experiments.benchmarks --out=experiments/results/benchmarks \
        --torch_python=DIRECTORY/bin/python

Parts about accelerators are measured if there is one, `devices` if there are two devices, or if
--parts names them.

PyTorch stays out of the project's environment: --torch_python is the interpreter of another one
that has torch and numpy. Without it the comparison leaves PyTorch out. To measure a part again,
delete its record. Leave the machine alone meanwhile.
"""

import json
import os
import pathlib
import shlex
import sys

import jax
from absl import flags

from experiments.benchmarks import (
    advice,
    device_agreement,
    devices,
    false_sentences,
    few_runs,
    first_record,
    host_overhead,
    image_reading,
    interval_coverage,
    machine,
    many_lanes,
    many_records,
    many_workers,
    mnist,
    race_replay,
    report,
    streaming,
    wide_resnet,
    wide_resnet_profile,
)
from launch import cli
from noisegen import storage

ON_ACCELERATORS = {
    "device_agreement": device_agreement,
    "wide_resnet": wide_resnet,
    "many_lanes": many_lanes,
    "wide_resnet_profile": wide_resnet_profile,
}
ANYWHERE = {
    "mnist": mnist,
    "few_runs": few_runs,
    "first_record": first_record,
    "host_overhead": host_overhead,
    "streaming": streaming,
    "image_reading": image_reading,
    "many_records": many_records,
    "many_workers": many_workers,
    "devices": devices,
    "interval_coverage": interval_coverage,
    "race_replay": race_replay,
    "false_sentences": false_sentences,
    "advice": advice,
}
PARTS = ON_ACCELERATORS | ANYWHERE

_OUT = flags.DEFINE_string("out", None, "Directory of the records and the table.")
_ONLY = flags.DEFINE_list("parts", None, f"Parts to measure: some of {', '.join(PARTS)}.")
_QUICK = flags.DEFINE_bool("quick", False, "A miniature that only shows that everything runs.")
_ROUNDS = flags.DEFINE_integer("rounds", None, "Repetitions; by default 2.", lower_bound=1)
_TORCH = flags.DEFINE_string("torch_python", None, "An interpreter that has torch and numpy.")


def main(argv: list[str]) -> None:
    """Measures the parts and prints their table."""
    cli.no_arguments(argv)
    # Else the first process to use an accelerator takes most of its memory from its children.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    chosen = default_parts() if _ONLY.value is None else _ONLY.value
    unknown = set(chosen) - set(PARTS)
    if unknown:
        raise cli.UsageError(
            f"--parts={','.join(sorted(unknown))}: expected some of {list(PARTS)}."
        )
    rounds = _ROUNDS.value or (1 if _QUICK.value else 2)
    if not _OUT.value:
        raise cli.UsageError("Missing --out=..., the directory of the records and the table.")
    out = pathlib.Path(_OUT.value)
    options = machine.Options(_QUICK.value, rounds, _TORCH.value)
    out.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        if name in chosen:
            _measure(name, options, out / f"{name}.json")
    text = tables(out)
    storage.write_file(out / "README.md", text)
    print(text, end="")


def default_parts() -> list[str]:
    """Returns the parts that apply to this machine."""
    parts = list(PARTS if machine.has_accelerator() else ANYWHERE)
    if len(jax.devices()) < 2:
        parts.remove("devices")
    return parts


def tables(out: pathlib.Path) -> str:
    """Returns the tables of the records in a directory, as Markdown."""
    paths = {name: out / f"{name}.json" for name in PARTS}
    records = {
        name: json.loads(path.read_text()) if path.exists() else None
        for name, path in paths.items()
    }
    return report.markdown(PARTS, records)


def _measure(name, options, path):
    """Measures one part, unless its record exists."""
    if path.exists():
        machine.say(f"{name}: measured before; delete {path} to measure it again")
        return
    machine.say(f"{name}: {PARTS[name].TITLE}")
    record = machine.describe(shlex.join(["python", *sys.orig_argv[1:]]), options)
    record |= PARTS[name].measure(options)
    storage.write_file(path, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)

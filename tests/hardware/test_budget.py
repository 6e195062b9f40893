"""The programs of some experiments take no more of an accelerator than the budget allows."""

import json
import pathlib
import subprocess
import sys

import jax
import pytest

from noisegen import hardware
from tests.hardware import programs

ROOT = pathlib.Path(__file__).parents[2]
TOLERANCE = 0.01


def faults(name, budget, found):
    """Returns sentences on the numbers that have risen, or fallen without a new budget."""
    command = f"python -m tests.hardware.programs --write {name}"
    for number in programs.LIMITED:
        allowed, now = budget[number], found[number]
        if now > (1 + TOLERANCE) * allowed:
            yield (
                f"{name}: {number} rose from {allowed} to {now}. Fix the program, or say what it "
                f"gains and write a new budget: {command}"
            )
        elif now < (1 - TOLERANCE) * allowed:
            yield f"{name}: {number} fell from {allowed} to {now}. Lower the budget: {command}"


def test_a_number_that_changes_needs_a_new_budget():
    budget = dict.fromkeys(programs.LIMITED, 1000)
    assert list(faults("lstm/h100", budget, budget | {"kernels": 1009})) == []
    [risen] = faults("lstm/h100", budget, budget | {"kernels": 1011})
    assert "kernels rose from 1000 to 1011" in risen and "--write lstm/h100" in risen
    [fallen] = faults("lstm/h100", budget, budget | {"peak_memory": 900})
    assert "Lower the budget" in fallen
    [first] = faults("lstm/h100", budget | {"collectives": 0}, budget | {"collectives": 1})
    assert "collectives rose from 0 to 1" in first


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(programs.read()))
def test_a_program_keeps_its_budget(name):
    target, budget = name.partition("/")[2], programs.read()[name]
    if not hardware.is_installed(hardware.find_target(target)):
        pytest.skip(f"The compiler for {target} is not installed, see launch/README.md.")
    if budget["jax"] != jax.__version__:
        pytest.skip(f"The budget is of JAX {budget['jax']}, and another compiles differently.")
    # A process of its own, because the tests of this one ask for little optimization.
    command = [sys.executable, "-m", "tests.hardware.programs", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1].partition(" ")[2])
    assert list(faults(name, budget, found)) == []

"""What launch/README.md lists is there: flags, and the test of every failure."""

import re

import pytest
from absl import flags

from launch import sweep
from tests.launch.harness import ROOT

README = (ROOT / "launch" / "README.md").read_text()
FAILURES = [line.split("|")[3] for line in README.splitlines() if "test_" in line and "|" in line]


def test_every_flag_is_listed():
    defined = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(sweep.__name__)}
    section = README.partition("## Flags of `launch.sweep`")[2]
    listed = set(re.findall(r"^\| `--([\w.]+)`", section, re.MULTILINE)) - {"config.NAME"}
    assert listed == defined


@pytest.mark.parametrize("cell", FAILURES)
def test_every_failure_has_its_test(cell):
    source = None
    for name in re.findall(r"`([^` ]+)`", cell):
        if name.endswith(".py"):
            path = ROOT / name if "/" in name else ROOT / "tests" / "launch" / name
            source = path.read_text()
        else:
            assert re.search(rf"def test_\w*{name}", source), (cell, name)
    assert source

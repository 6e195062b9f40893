"""What README.md shows is true: its Python runs, its commands exist."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from launch import experiment
from noisegen import reports

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
MODULES = sorted(set(re.findall(r"\bpython[\d.]* -m ([\w.]+)", README)))
TARGETS = sorted(set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", README, re.MULTILINE)))
FILES = sorted(set(re.findall(r"--config=([\w./]+)", README)))
LINKS = sorted(set(re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", README)))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_runs_by_itself(number, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[number]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_run_exists(module):
    assert importlib.util.find_spec(module) is not None
    source = pathlib.Path(importlib.util.find_spec(module).origin)
    package = source.name == "__init__.py"
    assert not package or (source.parent / "__main__.py").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_make_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", [*FILES, *LINKS])
def test_a_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("sweep", ["digits"])
def test_a_table_is_the_one_that_its_records_give(sweep, monkeypatch):
    results = ROOT / "experiments" / "results" / sweep
    monkeypatch.chdir(ROOT)  # experiments are looked for below the current directory
    exp = experiment.load_from_workdir(results)
    [table] = reports.load_report(results, exp.protocols, exp.runs).tables()
    assert table.strip() in README

"""Checks the READMEs: their Python runs, their commands and files exist."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from noisegen import reports, sweeps

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PATHS = [
    ROOT / "README.md",
    *sorted((ROOT / "noisegen").glob("*/README.md")),
    ROOT / "launch" / "README.md",
    *sorted((ROOT / "experiments").glob("**/README.md")),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PATHS}
EVERYTHING = "\n".join(TEXTS.values())
MODULES = sorted(set(re.findall(r"\bpython[\d.]* -m ([\w.]+)", EVERYTHING)))
TARGETS = sorted(set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", EVERYTHING, re.MULTILINE)))
# Words in capitals, such as NAME, stand for a choice of the reader's.
FILES = sorted(set(re.findall(r"--config=([a-z\d_./]+\.py)", EVERYTHING)))


def blocks():
    """Returns every Python block, with an id that names its file and number.

    `make test` runs those of the first README only. Advice trains for minutes:
    `tests/sweeps/test_advice.py` runs its block with made records.
    """
    params = []
    for name, text in TEXTS.items():
        found = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found = [code for code in found if "sweeps.advise(" not in code]
        marks = [] if name == "README.md" else [pytest.mark.slow]
        params += [
            pytest.param(code, id=f"{name}-{i}", marks=marks) for i, code in enumerate(found)
        ]
    return params


def links():
    """Returns every link to a file, as a path relative to the root."""
    paths = set()
    for name, text in TEXTS.items():
        for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text):
            paths.add(str(pathlib.Path(name).parent / link.partition("#")[0]))
    return sorted(paths)


@pytest.mark.parametrize("code", blocks())
def test_a_python_block_runs_by_itself(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"},
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


@pytest.mark.parametrize("path", [*FILES, *links()])
def test_a_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


def num_cells(row):
    """Returns the cells of a row of a table; bars in code do not separate cells."""
    return re.sub(r"`[^`]*`", "", row).strip().strip("|").count("|") + 1


@pytest.mark.parametrize("name", TEXTS)
def test_every_row_of_a_table_has_the_cells_of_its_header(name):
    for table in re.findall(r"(?:^\|.*\n)+", TEXTS[name], re.MULTILINE):
        header, *rows = table.splitlines()
        assert [row for row in rows if num_cells(row) != num_cells(header)] == []


@pytest.mark.parametrize("name", ["digits_noise"])
def test_a_table_is_the_one_that_its_records_give(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = sweeps.Sweep.open(ROOT / "experiments" / "results" / name)
    report = reports.load_report(sweep)
    [table] = report.tables()
    assert table.strip() in TEXTS["experiments/README.md"]
    stated = [answer for answer in report.readings[0].answers if answer.kind != "open"]
    assert stated and all(answer.text in README for answer in stated)


def verdicts(readme):
    """From each experiment in a table of reproductions to the seeds run and the verdict."""
    found = {}
    for line in (ROOT / readme).read_text().splitlines():
        command = re.search(r"`([a-z0-9_]+/\w+\.py(?::cpu)?)`", line)
        if line.startswith("|") and command:
            *_, run, verdict, _ = line.split("|")
            found[command[1]] = (run.strip(), verdict.strip())
    return found


def test_the_verdicts_are_those_of_the_index():
    index, shown = verdicts("experiments/README.md"), verdicts("README.md")
    assert shown
    assert shown == {command: index[command] for command in shown}

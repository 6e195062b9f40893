"""The committed tables are what the records, the experiments and the reports of today give."""

import pathlib

import pytest

import experiments
from launch import experiment
from noisegen import reports

ROOT = pathlib.Path(experiments.__path__[0]) / "results"
WORKDIRS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("sweep.json"))


def test_there_are_results():
    assert len(WORKDIRS) > 5


@pytest.mark.parametrize("name", WORKDIRS)
def test_committed_tables_are_those_of_the_records(name, monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    exp = experiment.load_from_workdir(ROOT / name)
    report = reports.load_report(ROOT / name, exp.protocols, exp.runs, exp.published)
    names = reports.table_names(exp.protocols)
    assert sorted(f"{each}.csv" for each in names) == sorted(
        path.name for path in (ROOT / name).glob("table*")
    )
    for each, table in zip(names, report.tables("csv"), strict=True):
        assert table.encode() == (ROOT / name / f"{each}.csv").read_bytes()

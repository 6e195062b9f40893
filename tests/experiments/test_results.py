"""The committed records are what the experiments and the reports of today read."""

import pathlib

import pytest

import experiments
from launch import experiment
from noisegen import reports, sweeps

ROOT = pathlib.Path(experiments.__path__[0]) / "results"
WORKDIRS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("sweep.json"))


def test_there_are_results():
    assert len(WORKDIRS) > 5


@pytest.mark.parametrize("name", WORKDIRS)
def test_committed_tables_are_those_of_the_records(name, monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    exp = experiment.load_from_workdir(str(ROOT / name))
    records = sweeps.read(ROOT / name, curves=False)
    task = sweeps.read_sweep(ROOT / name)["task"]
    wanted = sweeps.wanted(task, sweeps.by_run_id(task, exp.runs), exp.protocols, records)
    records = [record for record in records if record["run_id"] in wanted]
    for file, protocol in zip(reports.table_names(exp.protocols), exp.protocols, strict=True):
        table = sweeps.make_table(sweeps.select(records, protocol), protocol, exp.published)
        assert sweeps.to_text(table).strip() == (ROOT / name / f"{file}.txt").read_text().strip()

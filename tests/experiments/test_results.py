"""The committed records are read by the experiments and the reports of today."""

import pathlib

import pytest

import experiments
from noisegen import reports, sweeps

ROOT = pathlib.Path(experiments.__path__[0]) / "results"
WORKDIRS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("sweep.json"))


def test_there_are_results():
    assert len(WORKDIRS) > 5


@pytest.mark.parametrize("name", WORKDIRS)
def test_committed_tables_are_those_of_the_records(name, monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    sweep = sweeps.Sweep.open(ROOT / name)
    for file, protocol in zip(reports.table_names(sweep.protocols), sweep.protocols, strict=True):
        published = sweep.published if protocol == sweep.protocols[0] else None
        table = sweeps.make_table(sweep.optima(protocol), protocol, published)
        assert sweeps.to_text(table).strip() == (ROOT / name / f"{file}.txt").read_text().strip()

"""The committed tables are what the records, the experiments and the reports of today give."""

import pathlib
import shutil

import pytest

import experiments
from experiments.results import __main__ as results
from noisegen import reports, sweeps
from noisegen.reports.report import table_names

ROOT = pathlib.Path(experiments.__path__[0]) / "results"
WORKDIRS = [str(path.relative_to(ROOT)) for path in results.workdirs(ROOT)]


def test_there_are_results():
    assert len(WORKDIRS) > 5


@pytest.mark.parametrize("name", WORKDIRS)
def test_committed_tables_are_those_of_the_records(name, monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    report = reports.load_report(sweeps.Sweep.open(ROOT / name))
    names = table_names(report.readings)
    assert sorted(f"{each}.csv" for each in names) == sorted(
        path.name for path in (ROOT / name).glob("table*")
    )
    for each, table in zip(names, report.tables("csv"), strict=True):
        assert table.encode() == (ROOT / name / f"{each}.csv").read_bytes()
    answers = (ROOT / name / "answers.txt").read_text()
    assert answers == "\n\n".join(report.answer_texts()) + "\n"


def test_one_command_makes_all_reports_anew(tmp_path, monkeypatch, capsys):
    copied = tmp_path / "results" / "digits"
    shutil.copytree(ROOT / "digits", copied)
    for name in ("report.html", "figure.png", "table.csv"):
        (copied / name).unlink(missing_ok=True)
    monkeypatch.chdir(ROOT.parents[1])
    monkeypatch.setattr(results, "RESULTS", copied.parent)
    results.main([])
    assert capsys.readouterr().out == "digits/report.html\n"
    assert (copied / "table.csv").read_bytes() == (ROOT / "digits" / "table.csv").read_bytes()
    assert (copied / "report.html").exists() and (copied / "figure.png").exists()


def test_the_command_says_what_it_does(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        results.main(["--help"])
    assert "Writes the report, the tables and the figure of every" in capsys.readouterr().out

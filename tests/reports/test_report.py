"""The report: its files, and a page that is self-contained and counts what is there."""

import dataclasses
import html.parser
import math
import pathlib
import re
import subprocess
import sys

import pytest

from noisegen import reports, storage, sweeps
from noisegen.reports import drawing, figures, plots, provenance, report

NASTY = "<script>alert('&\"')</script>"


@pytest.fixture(scope="module", autouse=True)
def static():
    """These pages are as without Bokeh; test_explore.py has the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "can_explore", lambda records: False)
        yield


RUNS = sweeps.grid(batch_size=[64, 128], learning_rate=[0.25, 0.5, 1], seed=[0, 1])
PROTOCOL = sweeps.Protocol(best=2, of=2, max_extensions=0)


def record_of(run, task="task", **changes):
    accuracy = 0.9 - abs(run["learning_rate"] - 0.5) / 10 + run["seed"] / 100
    fields = {
        "run_id": sweeps.run_id(task, run),
        "hparams": run,
        "status": "finished",
        "metrics": {"test_accuracy": accuracy},
        "curve": {"epoch": [1, 2], "test_accuracy": [accuracy / 2, accuracy]},
        "device": "cpu <2>",
        "versions": {"jax": "0.10"},
    }
    return storage.Record(**fields | changes)


def write(workdir, records, **meta):
    storage.open_workdir(workdir, "example", "task", meta)
    with storage.RecordWriter(workdir) as writer:
        for record in records:
            writer.append(record)


def sweep_of(workdir, protocol, runs=None, published=None):
    """The sweep in a directory, by default with the runs of its records as the plan."""
    if runs is None:
        runs = [record.hparams for record in storage.read_records(workdir)] or RUNS
    return sweeps.Sweep(lambda: None, runs, protocol, workdir, published=published)


def write_report(*arguments, **fields):
    return reports.write_report(sweep_of(*arguments, **fields))


def load_report(*arguments, **fields):
    return reports.load_report(sweep_of(*arguments, **fields))


class Checker(html.parser.HTMLParser):
    """Tags in balance; keeps text and tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_and_tables_are_written(tmp_path):
    write(tmp_path, map(record_of, RUNS), title="A title", command="python -m launch.sweep")
    path = write_report(tmp_path, PROTOCOL, RUNS, {("", 64): (91.0, None)})
    assert path == tmp_path / "report.html"
    checker = Checker(path.read_text())
    text = " ".join(checker.text)
    facts = (
        "A title",
        "python -m launch.sweep",
        "jax 0.10",
        "cpu <2>",
        "0.25, 0.5, 1",
        "published",
    )
    assert [words for words in facts if words not in text] == []
    assert sum(tag == "svg" for tag, _ in checker.tags) == 4
    optima = sweeps.select(map(record_of, RUNS), PROTOCOL)
    table = reports.to_csv(optima, PROTOCOL, {("", 64): (91.0, None)})
    assert (tmp_path / "table.csv").read_text() == table
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files == {"sweep.json", "report.html", "answers.txt", "table.csv", "figure.png"}


@pytest.mark.parametrize("form", reports.FORMATS)
def test_a_report_gives_its_tables_in_every_format(tmp_path, form):
    write(tmp_path, map(record_of, RUNS))
    made = load_report(tmp_path, [PROTOCOL, PROTOCOL], RUNS)
    optima = sweeps.select(map(record_of, RUNS), PROTOCOL)
    assert made.tables(form) == [reports.FORMATS[form](optima, PROTOCOL)] * 2
    assert not list(tmp_path.glob("table*"))


def test_page_needs_no_network(tmp_path):
    write(tmp_path, map(record_of, RUNS))
    text = write_report(tmp_path, PROTOCOL).read_text()
    for tag, attributes in Checker(text).tags:
        assert tag not in ("script", "link", "iframe", "image")
        assert not attributes.get("src") and attributes.get("xlink:href", "#")[0] == "#"
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_all_text_is_escaped(tmp_path):
    protocol = sweeps.Protocol(best=2, of=2, series=lambda run: NASTY)
    changes = {"device": NASTY, "versions": {NASTY: NASTY}}
    write(
        tmp_path,
        [record_of(run, **changes) for run in RUNS],
        title=NASTY,
        description=NASTY,
        command=NASTY,
    )
    text = write_report(tmp_path, protocol).read_text()
    assert "<script" not in text
    assert "".join(Checker(text).text).count(NASTY) >= 6


def counts(workdir, **arguments):
    text = write_report(workdir, PROTOCOL, **arguments).read_text()
    return {word: int(n) for n, word in re.findall(r"<div><b>(\d+)</b> (\w+)</div>", text)}


def test_counts_and_foreign_records(tmp_path):
    runs = list(RUNS)
    records = [record_of(run) for run in runs[1:]]
    records[0] = dataclasses.replace(records[0], status="diverged")
    foreign = record_of(runs[0] | {"batch_size": 999})
    write(tmp_path, [*records, foreign])
    assert counts(tmp_path, runs=RUNS) == {"finished": 10, "diverged": 1, "missing": 1}
    assert "999" not in (tmp_path / "table.csv").read_text()
    assert counts(tmp_path) == {"finished": 11, "diverged": 1, "missing": 0}


def test_extensions_count_as_planned(tmp_path):
    runs = list(sweeps.grid(batch_size=[64], learning_rate=[0.125, 0.25], seed=[0, 1]))
    extended = [run | {"learning_rate": 0.5} for run in runs[:1]]
    write(tmp_path, map(record_of, runs + extended))
    protocol = sweeps.Protocol(best=2, of=2, max_extensions=1)
    text = write_report(tmp_path, protocol, runs).read_text()
    assert "<b>5</b> finished" in text and "<b>1</b> missing" in text


@pytest.mark.parametrize("status", ["none", "diverged"])
def test_pages_without_a_result(tmp_path, status):
    records = (
        [record_of(run, status=status, metrics={}) for run in RUNS] if status != "none" else []
    )
    write(tmp_path, records)
    text = write_report(tmp_path, PROTOCOL, RUNS).read_text()
    assert "<b>0</b> finished" in text
    assert ("nothing to show" in text) == (status == "diverged")
    assert ("No run has a record yet, so there is no table." in text) == (status == "none")
    Checker(text)


def test_torn_lines_warn_once(tmp_path):
    write(tmp_path, map(record_of, RUNS))
    (tmp_path / "records" / "torn.jsonl").write_text('{"run_id')
    with pytest.warns(UserWarning, match="skipped 1 line") as caught:
        write_report(tmp_path, PROTOCOL, RUNS)
    assert len(caught) == 1


def test_the_same_records_give_the_same_page(tmp_path):
    pages = set()
    for name, records in (
        ("a", list(map(record_of, RUNS))),
        ("b", list(map(record_of, RUNS))[::-1]),
    ):
        write(tmp_path / name, records)
        pages.add(write_report(tmp_path / name, PROTOCOL, RUNS).read_text())
    assert len(pages) == 1


def test_grey_tones_follow_the_theme():
    text = drawing.svg(lambda ax: ax.set_xlabel("x"), "title")
    assert "var(--ink)" in text and "#22262b" not in text and "<metadata" not in text
    assert text.startswith('<svg role="img" aria-label="title"')
    assert not re.search(r'<svg[^>]* width="', text)


def test_a_directory_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Nothing is trained in"):
        write_report(tmp_path, PROTOCOL)


@pytest.mark.slow
def test_importing_reports_does_not_import_matplotlib():
    code = "import sys, noisegen.reports, noisegen.sweeps; sys.exit('matplotlib' in sys.modules)"
    root = pathlib.Path(report.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_figures_with_nothing_to_show_are_left_out(tmp_path):
    def shown(runs, **changes):
        runs = list(runs)
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        write(directory, (record_of(run, **changes) for run in runs))
        text = write_report(directory, PROTOCOL, runs).read_text()
        return re.findall("<h3>(.*?)</h3>", text)

    everything = shown(RUNS)
    assert len(everything) == 4
    assert shown(run for run in RUNS if run["learning_rate"] == 1) == [
        "Test accuracy against batch size",
        "Test accuracy during training",
    ]
    one = {"epoch": [1], "test_accuracy": [0.5]}
    assert shown(RUNS, curve=one) == everything[:3]


def test_the_boundary_between_the_regimes_is_named(tmp_path):
    runs = [
        {"batch_size": size, "learning_rate": rate, "seed": seed}
        for size in (16, 64, 256, 1024)
        for rate in (0.1, 0.4, 1.6, 6.4)
        for seed in (0, 1)
    ]
    best = {16: 0.1, 64: 0.4, 256: 1.6, 1024: 1.6}
    storage.open_workdir(tmp_path, "regimes", "task")
    with storage.RecordWriter(tmp_path) as writer:
        for run in runs:
            accuracy = 0.9 - 0.1 * abs(math.log(run["learning_rate"] / best[run["batch_size"]]))
            writer.append(
                storage.Record(
                    run_id=sweeps.run_id("task", run),
                    hparams=run,
                    status="finished",
                    metrics={"test_accuracy": accuracy + 0.001 * run["seed"]},
                    curve={},
                )
            )
    protocol = sweeps.Protocol(best=2, of=2, max_extensions=0)
    text = write_report(tmp_path, protocol, runs).read_text()
    assert "lies at batch size 256 (95 % interval 256 to 256). Below it" in text


def test_further_protocols_make_further_tables(tmp_path):
    runs = [{"batch_size": 4, "learning_rate": rate, "seed": 0} for rate in (0.1, 0.2)]
    storage.open_workdir(tmp_path, "two", "task")
    with storage.RecordWriter(tmp_path) as writer:
        for run in runs:
            rate = run["learning_rate"]
            metrics = {"test_accuracy": rate, "train_loss": rate}
            run_id = sweeps.run_id("task", run)
            record = storage.Record(run_id=run_id, hparams=run, status="finished", metrics=metrics)
            writer.append(record)
    protocols = [
        sweeps.Protocol(max_extensions=0),
        sweeps.Protocol(metric="train_loss", mode="min", max_extensions=0),
    ]
    text = write_report(tmp_path, protocols, runs, {("", 4): (50.0, None)}).read_text()
    names = report.table_names(protocols)
    tables = load_report(tmp_path, protocols, runs, {("", 4): (50.0, None)}).tables()
    assert all((tmp_path / f"{name}.csv").exists() for name in names)
    assert names == ["table", "table_2"]
    assert "20.00 (1)" in tables[0] and "published" in tables[0]
    assert "0.1000 (1)" in tables[1] and "published" not in tables[1]
    for metric in ("Test accuracy", "Train loss"):
        assert f"<h2>{metric} for each batch size</h2>" in text


def test_figures_of_all_series_stand_above_the_table_and_those_of_each_below(tmp_path):
    protocol = dataclasses.replace(PROTOCOL, series=lambda run: f"seed {run['seed']}", best=1, of=1)
    write(tmp_path, map(record_of, RUNS))
    text = write_report(tmp_path, protocol, RUNS).read_text()
    parts = ["Test accuracy against batch size", "<table", "Mean test accuracy (%), seed 0"]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_a_report_says_how_many_runs_are_missing(tmp_path):
    write(tmp_path, [record_of(run) for run in list(RUNS)[2:]])
    assert "2 of 12 runs" in load_report(tmp_path, PROTOCOL, RUNS).describe_missing()
    assert load_report(tmp_path, PROTOCOL).describe_missing() == ""


LABELS = ["$a_b$", "_hidden", "<i>&\"'{title}%s", "x: #22262b", "", "a\nb", "中"]


def labelled(workdir, labels, **meta):
    """Writes a sweep with a series for each label, and its report; gives the page."""
    runs = list(sweeps.grid(batch_size=[64, 128], learning_rate=[0.5, 1], k=range(len(labels))))
    records = [
        record_of(run | {"seed": 0}, hparams=run, run_id=sweeps.run_id("task", run)) for run in runs
    ]
    write(workdir, records, **meta)
    protocol = sweeps.Protocol(series=lambda run: labels[run["k"]])
    return write_report(workdir, protocol).read_text(encoding="utf-8")


@pytest.mark.slow
def test_labels_reach_figures_and_table_as_they_are(tmp_path):
    words = [text.strip() for text in Checker(labelled(tmp_path, LABELS)).text]
    for label in LABELS:
        shown = repr(label) if label in ("", "a\nb") else label
        # A heading of the table, and the legends of two figures.
        assert words.count(shown) == 3, label
        assert f"Test accuracy during training, {shown}" in words


def test_texts_that_utf8_or_html_cannot_hold_are_escaped(tmp_path):
    odd = "a\udcff\x1b[0m\x00"
    text = labelled(tmp_path, [odd, "b"], title=odd, description=odd, command=odd, data=odd)
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    assert text.count(r"a\udcff\x1b[0m\x00") >= 8
    assert (tmp_path / "table.csv").read_text(encoding="utf-8")


def test_a_long_legend_leaves_room_for_the_figure():
    labels = [f"{k} " + "x" * 200 for k in range(12)]
    protocol = sweeps.Protocol(series=lambda run: labels[run["seed"]])
    records = [record_of(run | {"seed": k}) for run in list(RUNS)[:1] for k in range(12)]
    optima = sweeps.select(records, protocol)
    text = drawing.svg(lambda ax: plots.plot_metric(optima, ax, protocol), "title")
    [height] = re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', text)
    assert float(height) > 72 * (4.5 + 8)  # inches: 12 labels of 5 lines


def test_a_figure_that_fails_leaves_its_reason(tmp_path, monkeypatch):
    def fail(*_):
        assert (tmp_path / "table.csv").exists()  # tables come first
        raise RuntimeError("out of\nink <now>")

    write(tmp_path, map(record_of, RUNS))
    monkeypatch.setattr(plots, "plot_tuned", fail)
    with pytest.warns(
        UserWarning,
        match="lacks 2 of its parts; .* is left out: RuntimeError: out of ink <now>.",
    ):
        text = write_report(tmp_path, PROTOCOL, RUNS).read_text()
    words = Checker(text).text
    said = "The figure 'Best learning rate against batch size' is left out: RuntimeError: out of"
    assert f"{said} ink <now>." in words
    assert sum("is left out" in text for text in words) == 1 and text.count("<svg") == 3
    monkeypatch.undo()
    assert write_report(tmp_path, PROTOCOL, RUNS).read_text().count("<svg") == 4


def test_regimes_that_cannot_be_found_leave_their_reason(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("log of 0")

    write(tmp_path, map(record_of, RUNS))
    monkeypatch.setattr(figures.regimes, "boundaries", fail)
    with pytest.warns(
        UserWarning, match="boundary between noise and curvature is left out: ValueError"
    ):
        text = write_report(tmp_path, PROTOCOL, RUNS).read_text()
    assert "is left out: ValueError: log of 0" in text and text.count("<svg") == 4


@pytest.mark.parametrize("ends", [(math.nan, math.nan), (16, math.inf), (math.nan, 64)])
def test_a_boundary_without_an_interval_shows_none(ends):
    boundary = sweeps.Boundary(batch_size=32, learning_rate=0.5, low=ends[0], high=ends[1])
    said = figures.describe_boundary("", boundary)
    assert "batch size 32." in said and "0.016" in said and "interval" not in said
    boundary = sweeps.Boundary(batch_size=math.inf, learning_rate=math.nan)
    assert "nan" not in figures.describe_boundary("", boundary)


def test_fields_are_listed_as_words_numbers_and_booleans():
    runs = [
        {"batch_size": 1, "nesterov": True, "rule": "2^3", "a_b": 0.1, "a b": 1},
        {"batch_size": 2, "nesterov": False, "rule": "", "a_b": 0.10000005, "a b": 2},
    ]
    assert provenance.swept_fields(
        [storage.Record(hparams=run, status="finished", metrics={}) for run in runs]
    ) == [
        ("batch size", "1, 2"),
        ("nesterov", "False, True"),
        ("rule", "'', 2^3"),
        ("a b", "0.1, 0.10000005"),
        ("a b", "1, 2"),
    ]


WORDS = {"row": "optimizer", "tune": ("learning_rate", "nesterov"), "max_extensions": 0}
ODD = {
    "words": (WORDS, [("adam", 0.1, True), ("_x$1$", 0.1, False)], 0.5),
    "booleans": ({**WORDS, "row": "nesterov", "tune": ("optimizer",)}, [("a", 1, True)], 0.5),
    "zero": (WORDS, [("a", 0.0, True), ("a", 0.1, True)], 0.5),
    "negative": (
        {"row": "learning_rate", "tune": ("nesterov",)},
        [("a", -1.0, 0.5), ("a", -2.0, 1.5)],
        -1.0,
    ),
    "huge": (WORDS, [("a", 1e300, 2**60), ("a", 1e-300, 2**60 + 1)], 1e300),
    "tiny": (WORDS, [("a", 0.1, True), ("b", 0.1, True)], 1e-300),
    "not finite": (WORDS, [("a", 0.1, True), ("b", 0.2, True)], math.nan),
}


def odd_page(workdir, name):
    """Writes the report of odd values; gives its page."""
    protocol, values, score = ODD[name]
    metric = sweeps.Metric("score", unit="%" if name in ("huge", "tiny") else "")
    runs = [
        dict(zip(("optimizer", "learning_rate", "nesterov"), each, strict=True)) for each in values
    ]
    curve = {"epoch": [1, 2], metric.name: [score, score]}
    storage.open_workdir(workdir, "odd", "task")
    with storage.RecordWriter(workdir) as writer:
        for index, run in enumerate(runs):
            metrics = {metric.name: score * (1 + index / 100)}
            writer.append(record_of(run | {"seed": 0}, hparams=run, metrics=metrics, curve=curve))
    # A sweep refuses rows of words, whose records may be of another program.
    records, protocol = storage.read_records(workdir), sweeps.Protocol(metric=metric, **protocol)
    readings = [report.Reading(protocol, sweeps.select(records, protocol))]
    made = reports.Report(workdir, storage.read_sweep(workdir), records, 0, readings)
    return made.write().read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_values_have_a_whole_report(tmp_path, name):
    assert "is left out" not in odd_page(tmp_path, name)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        *("sweep.json", "report.html", "answers.txt", "figure.png", "table.csv"),
    }


def answered(workdir, labels=("a", "b"), **meta):
    """Writes a sweep whose records answer something; returns its page and its answers."""
    runs = sweeps.grid(
        batch_size=[16, 32, 64, 128],
        learning_rate=[0.125, 0.25, 0.5, 1, 2],
        seed=range(5),
        noise=[0, 1],
    )
    protocol = sweeps.Protocol(
        best=5, of=5, max_extensions=0, series=lambda run: labels[run["noise"]], labels=labels
    )
    records = []
    for run in runs:
        accuracy = 0.9 - 0.01 * math.log2(run["learning_rate"] / 0.55) ** 2
        accuracy += 0.001 * ((3 * run["seed"] + run["noise"] + run["batch_size"] // 16) % 5)
        accuracy -= 0.05 * (run["batch_size"] == 128) + 0.03 * run["noise"]
        metrics = {"test_accuracy": accuracy}
        records.append(record_of(run, metrics=metrics, num_updates=8192 // run["batch_size"]))
    write(workdir, records, **meta)
    sweep = sweep_of(workdir, protocol)
    return reports.write_report(sweep).read_text(), sweep


@pytest.fixture(scope="module")
def answered_page(tmp_path_factory):
    return answered(tmp_path_factory.mktemp("answered"))


def test_a_page_begins_with_its_answers(answered_page):
    text, sweep = answered_page
    found = sweep.answers()
    assert {answer.kind for answer in found} >= {"batch_size", "updates", "series", "open"}
    assert [text.count(answer.text) for answer in found] == [1] * len(found)
    assert text.index("<h2>Answers</h2>") < text.index(found[0].text) < text.index("<figure")
    rules = list(dict.fromkeys(answer.rule for answer in found if answer.rule))
    [notes] = re.findall(r'<ol class="notes">(.*?)</ol>', text, re.DOTALL)
    assert re.findall("<li>(.*?)</li>", notes) == rules
    numbers = [rules.index(answer.rule) + 1 for answer in found if answer.rule]
    assert [int(number) for number in re.findall(r"<sup>(\d+)</sup>", text)] == numbers


def test_answers_link_to_figures_that_exist(answered_page):
    text, sweep = answered_page
    checker = Checker(text)
    links = [attributes["href"] for tag, attributes in checker.tags if tag == "a"]
    figures = [attributes for tag, attributes in checker.tags if tag == "figure"]
    ids = [attributes["id"] for attributes in figures if "id" in attributes]
    assert len(links) == sum(bool(answer.figure) for answer in sweep.answers()) > 2
    assert set(links) <= {f"#{name}" for name in ids} and "#metric-1" in links
    assert len(set(ids)) == len(ids)


def test_the_answers_of_several_protocols_stand_apart(answered_page):
    _, sweep = answered_page
    [protocol] = sweep.protocols
    checker = Checker(write_report(sweep.workdir, [protocol, protocol]).read_text())
    heading = "Answers: Test accuracy for each batch size"
    assert checker.text.count(heading) == 2
    links = {attributes["href"] for tag, attributes in checker.tags if tag == "a"}
    assert links >= {"#metric-1", "#metric-2"}


def test_labels_in_answers_and_evidence_are_escaped(tmp_path):
    text, sweep = answered(tmp_path, labels=(NASTY, "plain"))
    assert "<script" not in text
    words = "".join(Checker(text).text)
    for answer in sweep.answers():
        assert answer.text in words
    assert f"plain − {NASTY}" in words


def test_a_page_shows_how_certain_its_numbers_are(answered_page, tmp_path):
    text, _ = answered_page
    assert text.index("<h2>Test accuracy for each batch size") < text.index(
        "How certain the numbers are"
    )
    evidence = text[text.index("How certain the numbers are") :]
    assert "unseen seeds" in evidence and "b − a" in evidence and "p (Holm)" in evidence
    single = tmp_path / "single"
    write(single, map(record_of, [run for run in RUNS if run["seed"] == 0]))
    assert "How certain the numbers are" not in write_report(single, PROTOCOL).read_text()


def test_a_report_without_records_has_no_answers(tmp_path):
    write(tmp_path, [])
    report = load_report(tmp_path, PROTOCOL, RUNS)
    said = "Nothing is trained yet: none of the 12 runs has a record"
    assert report.answer_texts() == [f"- {said}. Call sweep.run() first."]
    assert report.describe_missing() == "None of the 12 runs has a record yet."
    for form in ("text", "markdown", "latex"):
        assert report.tables(form) == ["No run has a record yet, so there is no table.\n"]
    text = write_report(tmp_path, PROTOCOL, RUNS).read_text()
    assert said in text and "<table" not in text and "<figure" not in text


def test_a_sweep_that_was_not_begun_says_what_to_call(tmp_path):
    sweep = sweep_of(tmp_path / "new", PROTOCOL, RUNS)
    for read in (sweep.answers, sweep.write_report):
        with pytest.raises(FileNotFoundError, match=r"Nothing is trained .* call sweep.run\(\)"):
            read()
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="no directory; give Sweep"):
        reports.load_report(sweep.replace(workdir=None))


def test_published_numbers_have_a_table_before_there_is_a_record(tmp_path):
    write(tmp_path, [])
    sweep = sweep_of(tmp_path, PROTOCOL, RUNS, {("", 64): (91.0, None)})
    report = reports.load_report(sweep)
    assert "91" in report.tables()[0] and "no table" not in report.write().read_text()


def test_planned_runs_come_before_further_seeds(tmp_path):
    write(tmp_path, [record_of(run) for run in list(RUNS)[2:]], command="noisegen sweep it.py")
    found = sweep_of(tmp_path, PROTOCOL, RUNS).answers()
    assert [answer.command for answer in found if answer.command] == ["noisegen sweep it.py"]
    [first] = [answer for answer in found if answer.command]
    assert first.text == "2 runs have no record yet, so every sentence may still change."


def test_the_command_for_more_seeds_is_that_of_the_sweep(answered_page):
    _, sweep = answered_page
    assert [answer.command for answer in sweep.answers() if answer.command] == []  # has none
    digits = pathlib.Path(__file__).parents[2] / "experiments" / "results" / "digits"
    [command] = [a.command for a in sweeps.Sweep.open(digits).answers() if a.command]
    assert re.fullmatch(r"python -m launch.sweep .*--config.grid.seed=range\(\d+\)'.*", command)

"""The explorable page: what is in it. test_explore_browser.py looks at it in a browser."""

import json
import re

import pytest

from noisegen import storage, sweeps
from noisegen.reports import explorable_runs
from noisegen.reports.explorable_runs import run_command, runs_content
from tests.reports.test_report import (
    NASTY,
    ODD,
    PROTOCOL,
    RUNS,
    Checker,
    odd_page,
    record_of,
    write,
    write_report,
)

bokeh = pytest.importorskip("bokeh", reason="pages are explorable with Bokeh")


def content_of(text):
    """The runs and the plots that a page holds."""
    scripts = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    *plots, runs = map(json.loads, scripts)
    return plots, runs


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("page")
    write(workdir, map(record_of, RUNS), command="noisegen sweep it.py")
    return write_report(workdir, PROTOCOL, published={("", 64): (91.0, None)}).read_text()


def test_each_plot_replaces_a_drawing_that_stays_for_print(page):
    plots, _ = content_of(page)
    checker = Checker(page)
    explorable = [
        a for tag, a in checker.tags if tag == "figure" and "explorable" in a.get("class", "")
    ]
    names = ["metric", "tuned", "runs", "heatmap", "curves"]
    assert [attributes["data-name"] for attributes in explorable] == names
    assert len(plots) == len(names) + 1  # the last one is of the runs that a reader chooses
    assert sum(tag == "svg" for tag, _ in checker.tags) == len(names) - 1


def test_the_page_needs_no_network(page):
    for tag, attributes in Checker(page).tags:
        assert tag not in ("link", "iframe", "image") and not attributes.get("src")


def columns_of(plot):
    """The columns of the sources of points of a plot."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            if value.get("name") == "ColumnDataSource":
                columns = dict(value["attributes"]["data"]["entries"])
                found.extend([columns] if "runs" in columns else [])
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                walk(each)

    walk(plot["doc"]["roots"])
    return found


def test_a_point_names_the_runs_behind_it(page):
    plots, runs = content_of(page)
    measured, published = columns_of(plots[0])
    assert measured["text"][0].splitlines() == [
        "batch size 64",
        "test accuracy (%): 90.50 ± 0.71",
        "best learning rate: 0.5",
        "91 (seed 1), 90 (seed 0)",
    ]
    values = {name: field["values"] for name, field in runs["fields"].items()}
    assert [values["seed"][run] for run in measured["runs"][0]] == [1, 0]
    assert {values["batch_size"][run] for run in measured["runs"][0]} == {64}
    assert published["text"] == ["batch size 64\npublished: 91"] and published["runs"] == [[]]


def test_a_cell_of_the_heat_map_has_all_runs_of_its_numbers(page):
    plots, runs = content_of(page)
    [cells] = columns_of(plots[3])
    assert len(cells["runs"]) == 6
    for x, y, chosen in zip(cells["x"], cells["y"], cells["runs"], strict=True):
        numbers = {
            tuple(runs["fields"][name]["values"][run] for name in ("batch_size", "learning_rate"))
            for run in chosen
        }
        assert numbers == {((64, 128)[x], (0.25, 0.5, 1)[y])} and len(chosen) == 2


def test_the_same_records_give_the_same_page(tmp_path, page):
    write(tmp_path, map(record_of, list(RUNS)[::-1]), command="noisegen sweep it.py")
    assert write_report(tmp_path, PROTOCOL, published={("", 64): (91.0, None)}).read_text() == page


def test_texts_of_the_user_never_act_as_instructions(tmp_path):
    protocol = sweeps.Protocol(series=lambda run: f"{NASTY} {run['seed']}")
    write(tmp_path, [record_of(run) for run in RUNS], title=NASTY, command=NASTY)
    text = write_report(tmp_path, protocol).read_text()
    assert "<script>alert" not in text
    assert NASTY in json.dumps(content_of(text)[0][0]).replace("\\", "")


def test_a_plot_that_fails_leaves_its_drawing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no ink")

    write(tmp_path, map(record_of, RUNS))
    monkeypatch.setattr("noisegen.reports.explorable_plots.Explorer.tuned", fail)
    with pytest.warns(UserWarning, match="explorable plot 'Best learning rate .* no ink"):
        text = write_report(tmp_path, PROTOCOL).read_text()
    assert text.count('<div class="drawing">') == 4
    assert len(content_of(text)[0]) == 5


def test_another_version_of_bokeh_leaves_the_page_static(tmp_path, monkeypatch):
    def fail():
        raise AttributeError("no such model")

    write(tmp_path, map(record_of, RUNS))
    monkeypatch.setattr("noisegen.reports.canvas.library", fail)
    with pytest.warns(UserWarning, match="The explorable page is left out: AttributeError"):
        text = write_report(tmp_path, PROTOCOL).read_text()
    assert "<script" not in text and text.count("<svg") == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_explorable(tmp_path, name):
    text = odd_page(tmp_path, name)
    assert "is left out" not in text and len(content_of(text)[0]) > 2


def test_more_runs_than_a_browser_takes_leave_the_page_static(tmp_path, monkeypatch):
    write(tmp_path, map(record_of, RUNS))
    monkeypatch.setattr(explorable_runs, "MOST_EXPLORABLE", 11)
    assert "<script" not in write_report(tmp_path, PROTOCOL).read_text()


@pytest.mark.parametrize(
    "command, words",
    [
        (
            "python -m launch.sweep --config=a.py --workdir=w",
            "python -m launch.sweep --config=a.py",
        ),
        ("noisegen sweep a.py --workdir w --workers 4", "noisegen sweep a.py"),
        ("noisegen sweep 'my a.py' --pool.lanes=2", "noisegen sweep 'my a.py'"),
        (
            "noisegen sweep a.py --config.run.momentum=0.5 --config.grid.seed=0,1 "
            "--config.search=race",
            "noisegen sweep a.py --config.run.momentum=0.5",
        ),
    ],
)
def test_the_command_of_a_run_keeps_the_experiment_and_its_config(command, words):
    config = {"grid": {"seed": (0, 1)}}
    assert run_command(command, config) == {"words": words, "fields": ["seed"]}


def test_a_sweep_of_a_program_has_no_command():
    assert run_command("", {"grid": {"seed": (0,)}}) is None
    assert run_command("noisegen sweep a.py", {}) is None


def test_curves_are_thinned_and_share_their_epochs():
    run = next(iter(RUNS))
    record = record_of(run, run_id="a")
    curve = {"epoch": list(range(1000)), "test_accuracy": [k / 1000 for k in range(1000)]}
    records = [record] * 1000
    content = runs_content(records, [(PROTOCOL, [""])], {"a": curve}, None)
    curves = content["curves"]["test_accuracy"]
    assert len(curves["epochs"]) == 1 and len(curves["values"]) == 1000
    [place, values] = curves["values"][0]
    epochs = curves["epochs"][place]
    assert len(values) == len(epochs) == 200 and (epochs[0], epochs[-1]) == (0, 999)
    assert values == [pytest.approx(epoch / 10) for epoch in epochs]


def test_numbers_that_json_lacks_are_null():
    run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
    record = storage.Record(run_id="a", hparams=run, status="diverged", metrics={})
    curve = {"epoch": [1, 2, 3], "test_accuracy": [0.5, None, float("inf")]}
    content = runs_content([record], [(PROTOCOL, [""])], {"a": curve}, None)
    assert content["metrics"]["test_accuracy"]["values"] == [None]
    assert content["curves"]["test_accuracy"]["values"] == [[0, [50.0, None, None]]]
    assert json.loads(json.dumps(content, allow_nan=False)) == json.loads(json.dumps(content))


def test_a_report_without_series_has_no_switches(page):
    assert "<fieldset" not in page

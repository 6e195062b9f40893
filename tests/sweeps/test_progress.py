"""What is shown of a sweep under way."""

import io
import sys

import pytest
from rich import console

from noisegen import reports, storage, sweeps, training
from noisegen.sweeps import progress


def record(
    batch_size, learning_rate, accuracy, eta=0.0, status="finished", num_examples=1000, seed=0
):
    run = {"batch_size": batch_size, "learning_rate": learning_rate, "eta": eta, "seed": seed}
    return storage.Record(
        run_id=str(run),
        hparams=run,
        status=status,
        metrics={"test_accuracy": accuracy, "test_loss": accuracy},
        num_examples=num_examples,
    )


class Sweep:
    """A sweep as far as its progress is shown, with records of some runs and none of others."""

    title = "A title"

    def __init__(self, records, todo=(), protocol=None):
        self.protocols = (protocol or sweeps.Protocol(),)
        self.state = State(records, todo)


class State:
    """The state of this sweep."""

    def __init__(self, records, todo):
        self.records_by_id = {each.run_id: each for each in records}
        self.wanted = {each.run_id: each.hparams for each in (*records, *todo)}
        self._todo = {each.run_id: run_of(each) for each in todo}

    def records(self):
        return list(self.records_by_id.values())

    def todo(self):
        return self._todo

    def runs(self):
        return self._todo


def run_of(record):
    """The run of a record, of 1,000 examples."""
    plan = training.plan({"batch_size": 10, "num_updates": 100, "seed": 0}, 1000)
    return training.Run(record.run_id, record.hparams, plan)


def text(shown):
    printer = console.Console(width=100)
    with printer.capture() as capture:
        printer.print(shown)
    return [line.split() for line in capture.get().splitlines() if line.strip()]


def test_a_tally_counts_and_shows_the_optimum_of_every_row():
    records = [record(64, 0.5, 0.75), record(64, 0.25, 0.5), record(8, 0.5, None, 0, "diverged")]
    tally = progress.Tally(Sweep(records, [record(8, rate, 0) for rate in range(997)]))
    assert tally.line() == "3/1,000 runs (1 diverged)"
    assert text(tally.table())[2:] == [["8", "-", "diverged"], ["64", "75.00", "(1)", "2^-1"]]
    tally.add(record(64, 0.125, 0.875))
    tally.add(record(8, 0.125, 0.25))
    shown = [["8", "25.00", "(1)", "2^-3"], ["64", "87.50", "(1)", "2^-3"]]
    assert text(tally.table())[2:] == shown


def test_a_tally_shows_the_numbers_of_the_report():
    protocol = sweeps.Protocol(best=2, of=2)
    scores = {0.1: (0.95, 0.5), 0.3: (0.9, 0.8)}  # the best run is not of the best mean
    records = [
        record(64, rate, score, seed=seed)
        for rate, pair in scores.items()
        for seed, score in enumerate(pair)
    ]
    [cells] = text(progress.Tally(Sweep(records, protocol=protocol)).table())[2:]
    assert cells == ["64", "85.00", "±", "7.07", "(2)", "0.3"]
    report = reports.to_text(sweeps.select(records, protocol), protocol)
    assert " ".join(cells) in " ".join(report.split())


def test_a_tally_of_a_loss_by_series_and_two_tuned_fields():
    protocol = sweeps.Protocol(
        metric="test_loss",
        mode="min",
        series=lambda run: "noise" if run["eta"] else "none",
        labels=("none", "noise"),
        tune=("learning_rate", "eta"),
    )
    records = [record(64, 0.5, 3.0, 0.1), record(64, 0.25, 2.0, 0.2), record(64, 0.5, 1.5)]
    shown = text(progress.Tally(Sweep(records, protocol=protocol)).table())
    assert " ".join(shown[0]) == "batch size test loss best learning rate best eta"
    assert shown[2:] == [
        ["none", "64", "1.5000", "(1)", "2^-1", "0"],
        ["noise", "64", "2", "(1)", "2^-2", "0.2"],
    ]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_speed_and_time_left_count_from_the_first_step(clock, capsys):
    first, second = record(64, 0.5, 0.75), record(64, 0.25, 0.5)
    with progress.Display(Sweep([record(64, 0.125, 0.5)], [first, second])) as show:
        show.say("compiling")
        clock[0] += 60  # compilation is no training
        show.progress([training.Progress(run_of(first), 100)])
        clock[0] += 2
        show.progress([training.Progress(run_of(first), 500)])
        assert show.line() == "1/3 runs, 200 examples/s, 0:08 left"
        show.finished(first)  # its examples must not count twice
        assert show.line() == "2/3 runs, 450 examples/s, 0:02 left"
        clock[0] += 9
        show.progress([training.Progress(run_of(second), 200)])
        show.finished(second)
        assert show.line() == "3/3 runs, 173 examples/s"
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "1/3 runs, compiling",
        "2/3 runs, 100 examples/s, 0:08 left",
        "3/3 runs, 173 examples/s",
    ]


def test_the_last_evaluations_of_runs_in_training_are_shown(clock):
    records = [record(64, rate, 0.75) for rate in (0.5, 0.25, 0.125)]
    show = progress.Display(Sweep([], records))
    curves = [{"test_accuracy": [0.1, 0.75]}, {"test_accuracy": [0.5]}, {"test_accuracy": []}]
    show.progress(
        [
            training.Progress(run_of(each), 0, curve)
            for each, curve in zip(records, curves, strict=True)
        ]
    )
    assert show.line() == "0/3 runs, test accuracy 50 to 75 % in training"


def test_a_diverged_run_leaves_nothing_to_wait_for(clock):
    diverged = record(64, 0.5, None, 0, "diverged", num_examples=10)
    show = progress.Display(Sweep([], [diverged, record(64, 0.25, 0.5)]))
    show.progress([])
    clock[0] += 1
    show.finished(diverged)
    assert show.line() == "1/2 runs (1 diverged), 10 examples/s, 1:40 left"


def test_a_sweep_that_is_stopped_says_how_fast_it_was(clock, capsys):
    first = record(64, 0.5, 0.75)
    with pytest.raises(KeyboardInterrupt), progress.Display(Sweep([], [first])) as show:
        show.progress([training.Progress(run_of(first), 100)])
        clock[0] += 2
        show.progress([training.Progress(run_of(first), 500)])
        raise KeyboardInterrupt
    assert capsys.readouterr().err.splitlines()[-1] == "0/1 runs, 200 examples/s, 0:02 left"


def test_an_extension_says_which_values_are_added_where_and_why(capsys):
    protocol = sweeps.Protocol(series=lambda run: "noise")
    # The best rate is the largest at batch sizes 64 and 32, the smallest at 8.
    records = [record(size, rate, rate) for size in (64, 32) for rate in (0.5, 1)]
    records += [record(8, rate, -rate) for rate in (0.5, 1)]
    new = [record(size, 2, 0).hparams for size in (64, 32)] + [record(8, 0.25, 0).hparams]
    said = progress.describe_extension(protocol, new, records)
    assert said == (
        "The grid is extended to the learning rate 2^1 at noise batch size 64 and 32."
        " There the largest learning rate tried is the best."
        " The grid is extended to the learning rate 2^-2 at noise batch size 8."
        " There the smallest learning rate tried is the best."
    )
    progress.Display(Sweep([], protocol=protocol)).note(said)
    assert capsys.readouterr().err == f"{said}\n"


def test_an_extension_names_the_error_bar_and_divergence():
    protocol = sweeps.Protocol(best=2, of=2)
    scores = {0.1: (0.8, 0.9), 0.2: (0.7, 1.1), 0.4: (0.8, 0.8)}
    records = [
        record(64, rate, score, seed=seed)
        for rate, pair in scores.items()
        for seed, score in enumerate(pair)
    ]
    new = [record(64, rate, 0).hparams for rate in (0.05, 0.8)]
    said = progress.describe_extension(protocol, new, records)
    assert "smallest learning rate tried is as good within one standard deviation" in said
    assert "largest learning rate tried is as good within one standard deviation" in said
    records = [record(64, rate, None, status="diverged") for rate in (0.1, 0.2)]
    said = progress.describe_extension(protocol, new[:1], records)
    assert said.endswith("the learning rate 0.05 at batch size 64. There every run diverged.")


def test_an_extension_names_every_field_that_is_extended():
    protocol = sweeps.Protocol(tune=("learning_rate", "eta"))
    records = [record(64, rate, rate + eta, eta) for rate in (0.1, 0.2) for eta in (0.3, 0.5)]
    rates = [record(64, 0.4, 0, eta).hparams for eta in (0.3, 0.5)]
    etas = [record(64, rate, 0, 0.8).hparams for rate in (0.1, 0.2)]
    said = [progress.describe_extension(protocol, new, records) for new in (rates, etas)]
    assert "learning rate 0.4 at batch size 64." in said[0] and "eta" not in said[0]
    assert "eta 0.8 at batch size 64." in said[1] and "learning rate" not in said[1]
    assert progress.describe_extension(protocol, rates + etas, records) == " ".join(said)


def test_an_extension_for_another_protocol_says_so():
    protocol = sweeps.Protocol()
    records = [record(64, rate, rate) for rate in (0.1, 0.2)]
    said = progress.describe_extension(protocol, [record(64, 0.1, 0, 0.3).hparams], records)
    assert "further protocol" in said


@pytest.mark.parametrize(
    "seconds, shown", [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90061, "25:01:01")]
)
def test_durations(seconds, shown):
    assert progress.duration(seconds) == shown


LABELS = ["[noise]", "[/noise]", "[red]x", ":smile:", "\x1b[31m", "", "中文"]


def labelled():
    protocol = sweeps.Protocol(series=lambda run: LABELS[int(run["eta"])])
    records = [record(64, 0.5, 0.75, eta) for eta in range(len(LABELS))]
    return Sweep(records, protocol=protocol)


def test_a_tally_shows_labels_as_they_are():
    shown = [words[0] for words in text(progress.Tally(labelled()).table())[2:]]
    assert sorted(shown) == sorted(
        ["[noise]", "[/noise]", "[red]x", ":smile:", "'\\x1b[31m'", "''", "中文"]
    )


def test_a_tally_shows_words_and_close_numbers_as_they_are():
    protocol = sweeps.Protocol(row="rule", tune=("learning_rate", "nesterov"), metric="seconds")
    runs = [
        {"rule": rule, "learning_rate": rate, "nesterov": True}
        for rule, rate in (("2^3", 0.1), ("[b]", 0.10000005))
    ]
    records = [
        storage.Record(run_id=str(run), hparams=run, status="finished", metrics={}, seconds=0.00001)
        for run in runs
    ]
    assert text(progress.Tally(Sweep(records, protocol=protocol)).table())[2:] == [
        ["2^3", "1e-05", "(1)", "0.1", "True"],
        ["[b]", "1e-05", "(1)", "0.10000005", "True"],
    ]


class Stream(io.TextIOWrapper):
    """A standard error of some encoding, a terminal or none."""

    def __init__(self, encoding, terminal):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self._terminal = terminal

    def isatty(self):
        return self._terminal

    def shown(self):
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("columns", ["0", "20", "100"])
def test_progress_is_shown_on_every_terminal(monkeypatch, encoding, terminal, columns):
    stream = Stream(encoding, terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", "60")
    monkeypatch.setenv("TERM", "xterm")
    sweep = labelled()
    sweep.title = "Title [/small] [red] – 中"
    with progress.Display(sweep) as show:
        show.note("[b] 0.1–0.2")
        show.say("compiling [c] ±")
    text = stream.shown()
    dash = "–" if encoding in ("cp1252", "utf-8") else "-"
    if columns == "100":
        assert f"[b] 0.1{dash}0.2" in text
        assert not terminal or f"Title [/small] [red] {dash}" in text and "[/noise]" in text
        assert terminal or "compiling [c] " + ("+-" if encoding == "ascii" else "±") in text


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    stream = Stream("utf-8", True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    with progress.Display(labelled()) as show:
        show.say("compiling")
        assert stream.shown() == "7/7 runs, compiling\n"


def test_a_panel_shows_what_is_wrong_with_its_table(monkeypatch):
    stream = Stream("utf-8", True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    older = record(64, 0.1, 0.5)
    del older.metrics["test_accuracy"]
    with progress.Display(Sweep([older])):
        pass
    assert "needs the metric 'test_accuracy'" in stream.shown()


def test_progress_needs_no_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.Display(labelled()) as show:
        show.say("compiling")
        show.note("a note")
    assert capsys.readouterr().out == ""

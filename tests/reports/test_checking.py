"""What a report needs is tried before anything is trained."""

import pathlib
import subprocess
import sys

import pytest

from noisegen import reports, sweeps

RUNS = list(
    sweeps.grid(batch_size=[64, 128], learning_rate=[0.25, 0.5, 1], eta=[0, 0.3], seed=[0, 1])
)


def by_noise(run):
    return f"noise {run['eta']}"


PROTOCOL = sweeps.Protocol(best=2, of=2, series=by_noise)
PUBLISHED = {("noise 0", 64): (98.0, None), ("noise 1", 256): (97.0, 0.5)}


def test_a_sound_sweep_passes_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loss = sweeps.Protocol(metric="loss", mode="min", report=("seconds",), series=by_noise)
    assert reports.check([PROTOCOL, loss], iter(RUNS), PUBLISHED, "A title", "Some {words}") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_thousand_runs_take_little_time_and_no_matplotlib():
    code = """if True:
        import sys, time
        from noisegen import reports, sweeps
        runs = sweeps.grid(batch_size=range(1, 11), learning_rate=range(1, 11), seed=range(10))
        began = time.process_time()
        reports.check(sweeps.Protocol(best=10, of=10), runs)
        assert time.process_time() - began < 1.5  # 0.1 s; processors differ
        assert "matplotlib" not in sys.modules
    """
    root = pathlib.Path(reports.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def numeric(run):
    return run["eta"]


def nothing(run):
    pass


def failing(run):
    return "abc"[run["seed"] + 2]


def forgetful(run):
    return {0.25: "small", 0.5: "middle", 1: "large"}[run["learning_rate"]]


FIRST = r"for the run \{'batch_size': 64, 'learning_rate': 0.25, 'eta': 0, 'seed': "


@pytest.mark.parametrize(
    "series, said",
    [
        (numeric, f"series numeric gives 0, which is no text, {FIRST}0"),
        (nothing, f"series nothing gives None, which is no text, {FIRST}0"),
        (failing, f"series failing fails with IndexError: .* {FIRST}1"),
        (lambda run: run["no"], f"series .*<lambda> fails with KeyError: 'no' {FIRST}0"),
    ],
)
def test_labels_that_are_no_text_name_function_and_run(series, said):
    with pytest.raises(ValueError, match=said) as caught:
        reports.check(sweeps.Protocol(best=2, of=2, series=series), RUNS)
    assert "\n" not in str(caught.value)


def test_series_label_the_runs_to_which_another_protocol_has_the_grid_grow():
    def protocols(extensions):
        shared = {"best": 2, "of": 2, "tune": ("learning_rate", "eta")}
        first = sweeps.Protocol(**shared, max_extensions=extensions)
        return first, sweeps.Protocol(**shared, max_extensions=0, series=forgetful)

    reports.check(protocols(0), RUNS)
    first = r"\{'batch_size': 64, 'learning_rate': 2, 'eta': 0, 'seed': 0\}"
    with pytest.raises(
        ValueError, match=f"fails with KeyError: .* {first}, which the grid may grow to"
    ):
        reports.check(protocols(1), RUNS)


@pytest.mark.parametrize(
    "published, said",
    [
        ({("", 64): (0.98, None)}, "percent, got at most 0.98; multiply"),
        ({("", 64): {"test_loss": (1.0, None)}}, "'test_loss' have no column"),
        ({("", 64): (98.0,)}, "must be .value, standard deviation or None., got .98.0,"),
        ({("", 64): "98"}, "got '98'"),
        ({64: (98.0, None)}, "have the key 64"),
    ],
)
def test_published_numbers_must_fit(published, said):
    with pytest.raises(ValueError, match=said):
        reports.check(sweeps.Protocol(best=2, of=2, tune=("learning_rate", "eta")), RUNS, published)


@pytest.mark.parametrize(
    "protocol, said",
    [
        (sweeps.Protocol(row="width"), "needs the field 'width'"),
        (sweeps.Protocol(tune=("width",)), "needs the field 'width'"),
        (sweeps.Protocol(), "differ in eta"),
    ],
)
def test_protocols_must_fit_the_runs(protocol, said):
    with pytest.raises(ValueError, match=said):
        reports.check(protocol, RUNS)


def test_titles_are_text():
    with pytest.raises(ValueError, match="title of a sweep must be text, got 3"):
        reports.check(PROTOCOL, RUNS, title=3)

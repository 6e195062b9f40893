"""Exports: each format read back with its own library, and nothing added by a second export."""

import json
import math
import sys

import pandas as pd
import pytest

from noisegen import export, storage, sweeps

GRID = sweeps.grid(batch_size=[4], learning_rate=[0.1, 0.2, 0.4], seed=[0])
NAMES = list(sweeps.by_run_id("t", GRID))
BEST = sweeps.Metric("lowest_loss", derive=lambda run: min(run.curve["test_loss"]))
PROTOCOL = sweeps.Protocol(metric=BEST, mode="min", report=("test_loss",), max_extensions=0)
TRACKERS = ["tensorboard", "wandb", "mlflow"]


def no_task():
    raise AssertionError("an export makes no task")


def make_record(name, **fields):
    [run] = [run for run_id, run in sweeps.by_run_id("t", GRID).items() if run_id == name]
    finished = {
        "status": "finished",
        "metrics": {"test_loss": 0.5, "odd": math.nan},
        "curve": {
            "epoch": [1.0, 2.0],
            "update": [10, 20],
            "test_loss": [0.25, 0.5],
            "odd": [1.0, math.nan],
        },
        "num_updates": 20,
        "num_examples": 80,
        "seconds": 1.5,
    }
    return storage.Record(run_id=name, hparams=run, **finished | fields)


def diverged(name):
    """A record whose loss was finite at its first evaluation only."""
    curve = {"epoch": [1.0, 2.0], "update": [10, 20], "test_loss": [0.25, math.nan]}
    return make_record(name, status="diverged", metrics={"test_loss": math.nan}, curve=curve)


@pytest.fixture
def sweep(tmp_path):
    """A sweep with one run, one that diverged, and one that is missing."""
    workdir = tmp_path / "slopes"
    storage.open_workdir(workdir, "sweep", "t", {})
    with storage.RecordWriter(workdir) as writer:
        writer.append(make_record(NAMES[0]))
        writer.append(make_record(NAMES[1], status="diverged", metrics={}, curve={}))
    return sweeps.Sweep(no_task, GRID, PROTOCOL, workdir)


def add_last(sweep):
    with storage.RecordWriter(sweep.workdir) as writer:
        writer.append(make_record(NAMES[2]))


def read_csv(out):
    return pd.read_csv(out / "runs.csv"), pd.read_csv(out / "curves.csv")


def read_parquet(out):
    pytest.importorskip("pyarrow")
    return pd.read_parquet(out / "runs.parquet"), pd.read_parquet(out / "curves.parquet")


@pytest.mark.parametrize("read", [read_csv, read_parquet])
def test_tables_are_those_of_the_sweep(sweep, tmp_path, read):
    to = read.__name__.removeprefix("read_")
    assert export.export(sweep, to, tmp_path / "out") == 2
    runs, curves = read(tmp_path / "out")
    assert runs["run_id"].tolist() == sorted(NAMES[:2])
    finished = runs[runs["status"] == "finished"].iloc[0]
    assert finished["lowest_loss"] == 0.25 and math.isnan(finished["odd"])
    assert curves["update"].tolist() == [10, 20] and curves["test_loss"].tolist() == [0.25, 0.5]
    assert set(curves["learning_rate"]) == {0.1}
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    export.export(sweep, to, tmp_path / "out")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def events(out):
    """Returns scalars and hyperparameters of each run, as TensorBoard reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for directory in out.iterdir():
        read = accumulator.EventAccumulator(str(directory)).Reload()
        tags = read.Tags()["scalars"]
        scalars = {tag: [(each.step, each.value) for each in read.Scalars(tag)] for tag in tags}
        hparams = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        found[directory.name.split()[-1]] = scalars, hparams
    return found


def test_tensorboard_has_series_by_update(sweep, tmp_path):
    pytest.importorskip("tensorboardX")
    out = tmp_path / "out"
    assert export.export(sweep, "tensorboard", out) == 2
    assert f"learning_rate=0.1 {NAMES[0]}" in {path.name for path in out.iterdir()}
    scalars, hparams = events(out)[NAMES[0]]
    assert scalars["test_loss"] == [(10, 0.25), (20, 0.5)] and scalars["odd"] == [(10, 1.0)]
    assert scalars["final/lowest_loss"] == [(0, 0.25)]
    assert b"learning_rate" in hparams and b"finished" in hparams


@pytest.mark.filterwarnings("ignore")  # of wandb about itself
def test_wandb_has_config_summary_and_history(sweep, tmp_path):
    pytest.importorskip("wandb")
    out = tmp_path / "out"
    assert export.export(sweep, "wandb", out) == 2
    [path] = out.glob(f"wandb/offline-run-*-{NAMES[0]}/run-{NAMES[0]}.wandb")
    history, summary, config = [], {}, {}
    for record in wandb_records(path):
        assert record.run.project in ("", "slopes")
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        items = record.history.item
        history.append({item.nested_key[0]: json.loads(item.value_json) for item in items})
        for item in record.summary.update:
            summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
    losses = [(step["_step"], step["test_loss"]) for step in history if "test_loss" in step]
    assert losses == [(10, 0.25), (20, 0.5)]
    assert config["learning_rate"] == 0.1 and summary["lowest_loss"] == 0.25
    assert summary["status"] == "finished" and "odd" not in history[-1]
    assert summary["odd"] is None and summary["test_loss"] == 0.5  # None is how it writes NaN


@pytest.mark.filterwarnings("ignore")  # of the libraries about themselves
@pytest.mark.parametrize("to", ["wandb", "mlflow"])
def test_a_run_that_diverged_ends_without_the_value_of_an_earlier_evaluation(sweep, tmp_path, to):
    pytest.importorskip(to)
    with storage.RecordWriter(sweep.workdir) as writer:
        writer.append(diverged(NAMES[2]))
    assert export.export(sweep, to, tmp_path) == 3
    if to == "mlflow":
        client = sys.modules[to].MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
        experiment = client.get_experiment_by_name("slopes").experiment_id
        [run] = client.search_runs([experiment], f"tags.`noisegen.run_id` = '{NAMES[2]}'")
        assert math.isnan(run.data.metrics["test_loss"])
        return
    [path] = tmp_path.glob(f"wandb/offline-run-*-{NAMES[2]}/run-{NAMES[2]}.wandb")
    values = [
        json.loads(item.value_json)
        for record in wandb_records(path)
        for item in record.summary.update
        if (item.key or item.nested_key[0]) == "test_loss"
    ]
    assert values[-1] is None


def wandb_records(path):
    """Yields the records of a run that wandb wrote offline: blocks of a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    content, position = path.read_bytes(), 7
    assert len(content) < 2**15  # one block
    while position < len(content):
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        record = content[position + 7 : position + 7 + length]
        yield wandb_internal_pb2.Record.FromString(record)
        position += 7 + length


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy and MLflow about themselves
def test_mlflow_has_params_metrics_and_histories(sweep, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    out = tmp_path / "out"
    assert export.export(sweep, "mlflow", out) == 2
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    [experiment] = [each for each in client.search_experiments() if each.name == "slopes"]
    runs = client.search_runs([experiment.experiment_id])
    by_id = {run.data.tags["noisegen.run_id"]: run for run in runs}
    assert by_id.keys() == set(NAMES[:2])
    run = by_id[NAMES[0]]
    assert run.data.params["learning_rate"] == "0.1"
    assert run.data.metrics["lowest_loss"] == 0.25 and run.data.metrics["test_loss"] == 0.5
    history = client.get_metric_history(run.info.run_id, "test_loss")
    assert [(each.step, each.value) for each in history] == [(10, 0.25), (20, 0.5)]
    assert by_id[NAMES[1]].data.tags["status"] == "diverged"


@pytest.mark.filterwarnings("ignore")  # of the libraries about themselves
@pytest.mark.parametrize("to", TRACKERS)
def test_a_second_export_adds_only_what_is_new(sweep, tmp_path, to):
    pytest.importorskip({"tensorboard": "tensorboardX"}.get(to, to))
    counts = [export.export(sweep, to, tmp_path / "out") for _ in range(2)]
    add_last(sweep)
    assert [*counts, export.export(sweep, to, tmp_path / "out")] == [2, 0, 1]


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy and MLflow about themselves
def test_mlflow_gets_a_run_anew_that_was_left_unfinished(sweep, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    export.export(sweep, "mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("slopes").experiment_id
    client.create_run(experiment, tags={"noisegen.run_id": NAMES[2]})
    add_last(sweep)
    client.create_run(experiment, tags={"noisegen.run_id": "of another sweep"})
    assert export.export(sweep, "mlflow", tmp_path) == 1
    runs = client.search_runs([experiment])
    unfinished = [run for run in runs if run.info.status != "FINISHED"]
    # Another sweep's export is perhaps at work.
    assert [run.data.tags["noisegen.run_id"] for run in unfinished] == ["of another sweep"]
    assert len(runs) == 4


@pytest.mark.filterwarnings("ignore")  # of wandb about itself
def test_wandb_gets_a_run_anew_that_was_left_unfinished(sweep, tmp_path):
    pytest.importorskip("wandb")
    unfinished = tmp_path / f"wandb/offline-run-20260101_000000-{NAMES[0]}"
    unfinished.mkdir(parents=True)
    assert export.export(sweep, "wandb", tmp_path) == 2
    [written] = tmp_path.glob(f"wandb/offline-run-*-{NAMES[0]}")
    assert written != unfinished


def test_an_error_of_a_library_is_one_line(sweep, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://bar")
    with pytest.raises(ValueError, match="MLflow fails: .* Runs that it has are kept"):
        export.export(sweep, "mlflow", tmp_path)


def test_a_running_sweep_is_followed_to_its_end(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: add_last(sweep))
    seen = []
    total = export.export(sweep, "csv", tmp_path / "out", follow=True, on_update=seen.append)
    assert seen == [2, 1] and total == 3
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 3


def test_a_missing_library_is_named_with_the_remedy(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"tensorboardX, .* run `pip install '.\[tensorboard\]'"):
        export.export(sweep, "tensorboard")
    assert not (sweep.workdir / "export").exists()


def test_an_unknown_format_is_refused(sweep):
    with pytest.raises(ValueError, match="no format 'excel'; choose one of csv, parquet"):
        export.export(sweep, "excel")

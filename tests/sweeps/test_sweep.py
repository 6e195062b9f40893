"""A sweep: which runs it wants, which are done, and what becomes of their records."""

import time
import tracemalloc

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import storage, sweeps, training

PROTOCOL = sweeps.Protocol(max_extensions=2)
POOL = {"lanes": 2, "microbatch": 16, "eval_batch": 64, "lane_devices": 1, "lanes_per_rare_step": 1}
RUNS = [{"batch_size": 4, "learning_rate": rate, "seed": 0} for rate in (0.25, 0.5, 1.0)]


def make_task(name="t", **functions):
    """A task whose loss is least at w = 3."""
    x = jnp.linspace(-1, 1, 64)

    def squared_error(w, state, batch):
        return (w * batch.data["x"] - batch.data["y"]) ** 2

    return training.Task(
        name=name,
        train={"x": x, "y": 3 * x},
        test={"x": x, "y": 3 * x},
        init=lambda key: (jnp.zeros(()), ()),
        loss=lambda w, state, batch: (squared_error(w, state, batch), state),
        metrics=lambda w, state, batch: {"test_loss": squared_error(w, state, batch)},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        **functions,
    )


def trainable(workdir, task=make_task, **fields):
    """A sweep that is trained in a second or two."""
    grid = sweeps.grid(batch_size=[16, 64], learning_rate=[0.05, 0.1, 0.2], seed=[0])
    protocol = sweeps.Protocol(metric="test_loss", mode="min", max_extensions=0)
    return sweeps.Sweep(task, grid * sweeps.fixed(num_epochs=2), protocol, workdir, **fields)


def planned(runs=RUNS, protocol=PROTOCOL, workdir=None):
    """A sweep whose task is known by name only, as one that is opened to be read."""
    sweep = sweeps.Sweep(lambda: pytest.fail("loads data"), runs, protocol, workdir)
    sweep.resume_reading("t")
    return sweep


def record(name, run, accuracy, **fields):
    metrics = {"test_accuracy": accuracy}
    return storage.Record(run_id=name, hparams=run, status="finished", metrics=metrics, **fields)


def left(sweep):
    return {name: run for name, run in sweep.wanted.items() if name not in sweep.done}


def train(sweep, until):
    """Gives each run that is left an accuracy that rises up to the learning rate `until`."""
    rates = []
    while todo := left(sweep):
        for name, run in todo.items():
            rates.append(run["learning_rate"])
            assert sweep.add(record(name, run, -abs(run["learning_rate"] - until)))
        sweep.extend()
    return rates


def test_a_sweep_is_trained_read_and_opened_again(tmp_path, monkeypatch, capsys):
    sweep = trainable(tmp_path / "sweep", title="A slope")
    assert sweep.optima() == [] and not (tmp_path / "sweep").exists()
    sweep.run()
    assert "6/6 runs" in capsys.readouterr().err
    assert [optimum.row for optimum in sweep.optima()] == [16, 64] and sweep.is_complete()
    frame = sweep.to_frame()
    assert len(frame) == 6 and set(frame["status"]) == {"finished"}
    assert frame.set_index("run_id")["test_loss"].to_dict() == {
        each.run_id: each.metrics["test_loss"] for each in sweep.records()
    }
    assert sweep.write_report().read_text().count("A slope") > 0
    opened = sweeps.Sweep.open(tmp_path / "sweep")
    assert (opened.title, opened.records()) == ("A slope", sweep.records())
    assert opened.optima() == sweep.optima() and opened.is_complete()
    with pytest.raises(ValueError, match="opened to be read"):
        opened.run()


def test_a_sweep_that_is_run_again_trains_what_is_missing_only(tmp_path):
    trainable(tmp_path).run(progress=False, pool=POOL)
    [path] = (tmp_path / "records").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    trainable(tmp_path).run(progress=False, pool=POOL)
    counts = {file: len(file.read_bytes().splitlines()) for file in path.parent.iterdir()}
    assert sorted(counts.values()) == [2, 4] and counts[path] == 4
    first = [storage.Record.from_json(line) for line in lines]
    again = {each.run_id: each.metrics for each in trainable(tmp_path).records()}
    assert {each.run_id: each.metrics for each in first} == again


def test_two_sweeps_of_one_directory_share_the_runs(tmp_path):
    one, other = trainable(tmp_path), trainable(tmp_path)
    one.run(progress=False, pool=POOL)
    other.run(progress=False, pool=POOL)
    assert sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob("records/*")) == 6


def test_to_read_a_sweep_makes_no_task(tmp_path):
    trainable(tmp_path).run(progress=False, pool=POOL)
    read = trainable(tmp_path, task=lambda: pytest.fail("loads data"))
    read.resume_reading("t")
    assert len(read.records()) == 6 and len(read.optima()) == 2


def test_parameters_that_are_kept_can_be_read(tmp_path):
    sweep = trainable(tmp_path)
    sweep.run(progress=False, pool=POOL, keep_params=True)
    for each in sweep.records():
        w = storage.load_params(tmp_path, each.run_id, like=jnp.zeros(()))
        assert (3 - w) ** 2 * np.mean(np.linspace(-1, 1, 64) ** 2) == pytest.approx(
            each.metrics["test_loss"], rel=1e-3
        )


def test_a_sweep_that_is_refused_leaves_nothing(tmp_path):
    for task, runs, match in [
        (make_task, [{"batch_size": 65, "learning_rate": 1, "num_epochs": 1, "seed": 0}], "65"),
        (lambda: None, RUNS, "None is not a Task"),
        (make_task, [{"batch_size": 4, "seed": 0, "num_epochs": 1}], "learning_rate"),
    ]:
        protocol = sweeps.Protocol(metric="test_loss", mode="min")
        with pytest.raises(ValueError, match=match):
            sweeps.Sweep(task, runs, protocol, tmp_path / "sweep").run()
    with pytest.raises(ValueError, match="the metric 'test_accuracy', but there are only"):
        sweeps.Sweep(make_task, trainable(None).planned, PROTOCOL, tmp_path / "sweep").run()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no directory"):
        trainable(None).run()
    with pytest.raises(ValueError, match="there are none"):
        sweeps.Sweep(make_task, [])


def test_a_directory_belongs_to_one_task(tmp_path):
    trainable(tmp_path).run(progress=False, pool=POOL)
    with pytest.raises(ValueError, match="another task: 't', not 'other'"):
        trainable(tmp_path, task=lambda: make_task("other")).run()
    with pytest.raises(ValueError, match="another sweep: 'sweep', not 'other'"):
        trainable(tmp_path, name="other").run()


def test_tasks_of_each_batch_size_have_one_name(tmp_path):
    made = []

    def task(batch_size, name="t"):
        made.append(batch_size)
        return make_task(name, only_batch_size=batch_size)

    trainable(tmp_path, task=task, per_batch_size=True).run(progress=False, pool=POOL)
    assert made == [16, 64]
    with pytest.raises(ValueError, match="of all batch sizes one name"):
        sweep = trainable(None, task=lambda b: task(b, f"t{b}"), per_batch_size=True)
        sweep.validate()
    with pytest.raises(ValueError, match="needs the field batch_size"):
        sweeps.Sweep(task, [{"seed": 0}], PROTOCOL, per_batch_size=True).validate()


def test_a_sweep_with_functions_in_its_protocol_is_made_again_to_be_read(tmp_path):
    sweep = trainable(tmp_path)
    sweep.protocols = (sweeps.Protocol(metric="test_loss", series=lambda run: "all"),)
    sweep.run(progress=False, pool=POOL)
    with pytest.raises(ValueError, match="make the Sweep as that program did"):
        sweeps.Sweep.open(tmp_path)


def test_runs_are_wanted_once_in_the_order_of_the_plan():
    sweep = planned([*RUNS, {**RUNS[0], "batch_size": 4.0}])
    assert list(left(sweep).values()) == RUNS
    assert list(left(sweep)) == [sweeps.run_id("t", run) for run in RUNS]


def test_the_grid_grows_until_the_optimum_is_inside():
    assert train(planned(), 0.5) == [0.25, 0.5, 1.0]
    assert train(planned(), 2.0) == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert train(planned(), 99) == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_the_grid_does_not_grow_by_runs_that_cannot_be_trained():
    run = {"batch_size": 64, "num_epochs": 3, "last_batch": "keep", "learning_rate": 1, "seed": 0}
    runs = [run | {"num_epochs": 3, "batch_size": size} for size in (16, 32)]
    protocol = sweeps.Protocol(row="learning_rate", tune=("batch_size",), metric="test_loss")
    protocol = sweeps.Protocol(
        row="learning_rate",
        tune=("batch_size",),
        domains={"batch_size": sweeps.Domain("integer")},
    )
    sweep = sweeps.Sweep(make_task, runs, protocol)
    sweep.runs()
    for _ in range(2):
        for name, run in left(sweep).items():
            sweep.add(record(name, run, run["batch_size"]))
        if not any(run["batch_size"] == 64 for run in sweep.wanted.values()):
            assert [run["batch_size"] for run in sweep.extend().values()] == [64]
    with pytest.warns(UserWarning, match="128, which is refused: .* between 1 and the 64"):
        assert sweep.extend() == {}


def test_a_resumed_sweep_wants_the_same_runs(tmp_path):
    whole = planned()
    train(whole, 2.0)
    records = list(whole.done.values())
    for count in range(len(records) + 1):
        workdir = tmp_path / str(count)
        with storage.RecordWriter(workdir) as writer:
            for each in records[:count][::-1]:
                writer.append(each)
        resumed = planned(workdir=workdir)
        assert len(resumed.done) == count
        train(resumed, 2.0)
        assert resumed.wanted == whole.wanted
        assert {n: r.metrics for n, r in resumed.done.items()} == {
            n: r.metrics for n, r in whole.done.items()
        }


def test_records_of_other_plans_do_not_count(tmp_path):
    other = record("0" * 16, {"batch_size": 8, "learning_rate": 1.0, "seed": 0}, 1.0)
    sweep = planned(workdir=tmp_path)
    with storage.RecordWriter(tmp_path) as writer:
        writer.append(other)
    assert sweep.records() == [] and len(left(sweep)) == 3
    assert not sweep.add(other) and sweep.refresh() == []


def test_runs_that_the_protocol_cannot_tell_apart_are_refused_before_training():
    runs = [run | {"noise": noise} for run in RUNS for noise in (0.0, 0.1)]
    with pytest.raises(ValueError, match=r"differ in noise \(\[0.1\] and \[0\]\).*tune"):
        planned(runs).wanted  # noqa: B018


def test_records_of_others_are_noticed_once(tmp_path):
    sweep = planned(workdir=tmp_path)
    name, run = next(iter(sweep.wanted.items()))
    with storage.RecordWriter(tmp_path) as writer:
        writer.append(record(name, run, 0.5, curve={"epoch": [1]}, device="a GPU"))
        [noticed] = sweep.refresh()
        assert noticed.run_id == name and sweep.refresh() == []
        writer.append(record(name, run, 0.5))
        assert sweep.refresh() == []
    assert (sweep.records()[0].device, sweep.records()[0].curve) == ("a GPU", None)
    assert sweep.curves([name]) == {name: {"epoch": [1]}}


def test_of_several_records_of_a_run_the_first_finished_stays():
    sweep = planned()
    name = next(iter(sweep.wanted))
    for day, accuracy in ((2, 0.2), (1, 0.1), (3, 0.3)):
        sweep.add(record(name, RUNS[0], accuracy, finished_at=f"2026-01-0{day}"))
    assert sweep.done[name].metrics == {"test_accuracy": 0.1} and len(sweep.done) == 1


def test_memory_stays_small_while_runs_get_their_records():
    grid = sweeps.grid(batch_size=(4, 8), learning_rate=(0.25, 0.5, 1.0), seed=range(500))
    sweep = planned(grid)
    fields = {"finished_at": "2026-01-01T00:00:00.000Z", "versions": {"jax": "0"}, "device": "d"}
    grown = []
    tracemalloc.start()
    try:
        for name, run in sweep.wanted.items():
            line = record(name, run, 0.5, **fields).to_json()
            sweep.add(storage.Record.from_json(line))
            grown.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(sweep.done) == len(grown) == 3000 and sweep.is_complete()
    assert (grown[-1] - grown[300]) / 2700 < 800  # bytes a record


@pytest.mark.slow
def test_100_000_runs_are_planned_in_seconds():
    rates = tuple(2.0**k for k in range(-12, 1))
    sizes = tuple(2**k for k in range(4, 11))
    grid = sweeps.grid(batch_size=sizes, learning_rate=rates, seed=range(1100))
    start = time.process_time()
    assert len(left(planned(grid))) == 100_100
    assert time.process_time() - start < 10


def test_a_sweep_that_is_opened_knows_which_runs_the_task_refused(tmp_path):
    def check_run(hparams, plan):
        if hparams["learning_rate"] > 0.3:
            raise ValueError("too large")

    runs = [
        {"batch_size": 16, "learning_rate": rate, "num_epochs": 1, "seed": 0} for rate in (0.1, 0.2)
    ]
    protocol = sweeps.Protocol(metric="test_loss", mode="min", max_extensions=3)
    task = make_task(check_run=check_run)
    with pytest.warns(UserWarning, match="learning_rate=0.4, which is refused: too large"):
        sweep = sweeps.Sweep(task, runs, protocol, tmp_path)
        sweep.run(progress=False, pool=POOL)
    with pytest.warns(UserWarning, match="learning_rate=0.4, which is refused"):
        opened = sweeps.Sweep.open(tmp_path)
        assert opened.is_complete() and opened.wanted == sweep.wanted


def test_a_sweep_that_is_opened_has_its_published_numbers(tmp_path):
    published = {("", 16): {"test_loss": (0.5, None)}, ("", 64): (0.75, 0.1)}
    sweep = trainable(tmp_path, published=published)
    sweep.run(progress=False, pool=POOL)
    assert sweeps.Sweep.open(tmp_path).published == published
    assert sweeps.Sweep.open(tmp_path).table().equals(sweep.table())


@pytest.mark.parametrize(
    "published",
    [{8: 0.9}, [1], {("", 16): 5}, {("", 16): {"x": (1, 2)}}],
)
def test_published_numbers_of_another_form_are_refused_before_training(tmp_path, published):
    with pytest.raises(ValueError):
        trainable(tmp_path / "sweep", published=published).run(progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fields", [{"runs": None}, {"protocol": []}, {"runs": [1]}])
def test_a_sweep_needs_runs_and_a_protocol(fields):
    with pytest.raises(ValueError, match="[Aa] (sweep needs|run is)"):
        sweeps.Sweep(**{"task": make_task, "runs": RUNS, **fields})

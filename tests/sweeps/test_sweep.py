"""A sweep: which runs it wants, which are done, and what becomes of their records."""

import dataclasses
import shutil
import time
import tracemalloc

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import reports, storage, sweeps, training
from noisegen.sweeps import progress, worker
from noisegen.training import task_check

PROTOCOL = sweeps.Protocol(max_extensions=2)
POOL = {"lanes": 2, "microbatch": 16, "eval_batch": 64, "lane_devices": 1, "lanes_per_rare_step": 1}
RUNS = [
    {"batch_size": 4, "learning_rate": rate, "num_epochs": 1, "seed": 0}
    for rate in (0.25, 0.5, 1.0)
]


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
    """The state of a sweep with these runs."""
    return sweeps.Sweep(make_task, runs, protocol, workdir).state


def record(name, run, accuracy, **fields):
    metrics = {"test_accuracy": accuracy}
    return storage.Record(run_id=name, hparams=run, status="finished", metrics=metrics, **fields)


def left(state):
    return {name: run for name, run in state.wanted.items() if name not in state.records_by_id}


def train(state, until):
    """Gives each run that is left an accuracy that rises up to the learning rate `until`."""
    rates = []
    while todo := left(state):
        for name, run in todo.items():
            rates.append(run["learning_rate"])
            assert state.add(record(name, run, -abs(run["learning_rate"] - until)))
        state.extend()
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


def test_the_directory_says_how_many_examples_the_metrics_are_of(tmp_path):
    trainable(tmp_path / "one").run(progress=False, pool=POOL)
    content = storage.read_sweep(tmp_path / "one")
    assert content["num_test_examples"] == 64 and "num_valid_examples" not in content


@pytest.mark.slow
def test_a_sweep_is_tuned_on_validation_data_and_reported_on_test_data(tmp_path):
    # The best slope of the validation data is 1, where the test loss is large.
    x = jnp.linspace(-1, 1, 16)
    protocol = sweeps.Protocol(
        metric="valid_loss", mode="min", report=("test_loss",), max_extensions=0
    )
    grid = sweeps.grid(batch_size=[64], learning_rate=[0.1, 0.5, 1.5], seed=[0])
    sweep = sweeps.Sweep(
        make_task(valid={"x": x, "y": x}), grid * sweeps.fixed(num_updates=3), protocol, tmp_path
    )
    sweep.run(progress=False, pool=POOL)
    content = storage.read_sweep(tmp_path)
    assert (content["num_test_examples"], content["num_valid_examples"]) == (64, 16)
    frame = sweep.to_frame().set_index("learning_rate")
    assert frame["valid_loss"].idxmin() != frame["test_loss"].idxmin()
    [optimum] = sweep.optima()
    chosen = frame.loc[optimum.values["learning_rate"]]
    assert chosen["valid_loss"] == frame["valid_loss"].min()
    assert optimum.report["test_loss"][0] == chosen["test_loss"] > frame["test_loss"].min()


def test_two_sweeps_of_one_directory_share_the_runs(tmp_path):
    one, other = trainable(tmp_path), trainable(tmp_path)
    one.run(progress=False, pool=POOL)
    other.run(progress=False, pool=POOL)
    assert sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob("records/*")) == 6


def test_to_read_a_sweep_makes_no_task(tmp_path):
    trainable(tmp_path).run(progress=False, pool=POOL)
    read = trainable(tmp_path, task=lambda: pytest.fail("loads data"))
    assert len(read.records()) == 6 and len(read.optima()) == 2


def test_a_sweep_can_be_made_of_another_with_other_arguments(tmp_path):
    published = {("", 16): (1, 0)}
    sweep = trainable(tmp_path / "one", title="One", description="Words", published=published)
    other = sweep.replace(workdir=tmp_path / "other", title="Other")
    assert (other.title, other.description, other.workdir.name) == ("Other", "Words", "other")
    assert (other.planned, other.protocols) == (sweep.planned, sweep.protocols)
    assert other.published == published and sweep.workdir.name == "one"


def test_the_command_of_a_sweep_stays_until_another_is_given(tmp_path):
    for given, kept in ((None, None), ("one", "one"), (None, "one"), ("other", "other")):
        with trainable(tmp_path).begun(command=given):
            pass
        assert storage.read_sweep(tmp_path).get("command") == kept


def test_whether_a_sweep_is_complete_is_read_from_its_directory(tmp_path):
    sweep = sweeps.Sweep(make_task, RUNS, PROTOCOL, tmp_path)
    assert not sweep.is_complete()
    with storage.RecordWriter(tmp_path) as writer:
        for name, run in left(sweep.state).items():  # best at 0.5, between the others
            writer.append(record(name, run, -abs(run["learning_rate"] - 0.5)))
    assert sweep.is_complete()


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


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "sweep"):
        with pytest.raises(NotADirectoryError, match="is a file, not a directory; choose a"):
            trainable(workdir).run(progress=False, pool=POOL)


def test_a_directory_belongs_to_one_task(tmp_path):
    trainable(tmp_path).run(progress=False, pool=POOL)
    with pytest.raises(ValueError, match="another task: 't', not 'other'"):
        trainable(tmp_path, task=lambda: make_task("other")).run()
    with pytest.raises(ValueError, match="another sweep: 'sweep', not 'other'"):
        trainable(tmp_path, name="other").run()


@pytest.mark.slow
def test_tasks_of_each_batch_size_have_one_name(tmp_path):
    made = []

    def task(batch_size, name="t"):
        made.append(batch_size)
        return make_task(name, only_batch_size=batch_size)

    trainable(tmp_path, task=task, static=("batch_size",)).run(progress=False, pool=POOL)
    assert made == [16, 64]
    with pytest.raises(ValueError, match="of all values of batch_size one name"):
        sweep = trainable(None, task=lambda b: task(b, f"t{b}"), static=("batch_size",))
        sweep.validate()
    with pytest.raises(ValueError, match="needs the field batch_size"):
        sweeps.Sweep(task, [{"seed": 0}], PROTOCOL, static=("batch_size",)).validate()


def sized(num_train, power):
    """A task of some of the examples, whose model has a power for its shape."""
    x = np.linspace(-1, 1, 64, dtype=np.float32)

    def squared_error(w, state, batch):
        powers = batch.data["x"][:, None] ** np.arange(power + 1)[None]
        return (powers @ w - batch.data["y"]) ** 2

    return dataclasses.replace(
        make_task(),
        train={"x": x[::num_train], "y": x[::num_train] ** 2},
        test={"x": x, "y": x**2},
        init=lambda key: (jnp.zeros(power + 1), ()),
        loss=lambda w, state, batch: (squared_error(w, state, batch), state),
        metrics=lambda w, state, batch: {"test_loss": squared_error(w, state, batch)},
    )


def sized_sweep(task=sized, static=("num_train", "power"), **fields):
    grid = sweeps.grid(num_train=[1, 4], power=[1, 2], learning_rate=[0.2, 0.4], seed=[0])
    fixed = sweeps.fixed(batch_size=8, num_updates=150)
    protocol = sweeps.Protocol(
        metric="test_loss",
        mode="min",
        row="num_train",
        series=lambda run: f"power {run['power']}",
        max_extensions=0,
    )
    return sweeps.Sweep(task, grid * fixed, protocol, static=static, **fields)


@pytest.mark.slow
def test_a_task_may_be_a_function_of_any_fields(tmp_path):
    sweep = sized_sweep(workdir=tmp_path)
    sweep.run(progress=False, pool=POOL)
    assert sweep.is_complete() and len(sweep.state.tasks()) == 4
    loss = {(each.series, each.row): each.mean for each in sweep.optima()}
    assert loss.keys() == {(f"power {power}", n) for power in (1, 2) for n in (1, 4)}
    # A line cannot be a parabola.
    assert max(loss["power 2", n] for n in (1, 4)) < 0.02 < min(loss["power 1", n] for n in (1, 4))


@pytest.mark.slow
def test_a_static_field_may_be_a_word_in_a_race(tmp_path):
    grid = sweeps.grid(kind=["line", "parabola"], learning_rate=[0.2, 0.4], seed=[0, 1])
    fields = {"metric": "test_loss", "mode": "min", "max_extensions": 0, "search": "race"}
    sweep = sweeps.Sweep(
        lambda kind: sized(1, power={"line": 1, "parabola": 2}[kind]),
        grid * sweeps.fixed(batch_size=8, num_updates=20),
        sweeps.Protocol(series=lambda run: run["kind"], best=2, of=2, **fields),
        tmp_path,
        static=("kind",),
    )
    sweep.run(progress=False, pool=POOL)
    line, parabola = sweep.optima()
    assert sweep.is_complete() and line.series == "line" and parabola.mean < line.mean


def test_the_order_of_static_fields_does_not_matter():
    sweep = sized_sweep(static=("power", "num_train"))
    params, _ = sweep.task_of({"num_train": 4, "power": 1}).init(None)
    assert params.shape == (2,)


@pytest.mark.parametrize("static, message", [((), "none"), (("power",), "power")])
def test_static_fields_must_be_those_of_the_function(static, message):
    with pytest.raises(ValueError, match=rf"static fields \({message}\): missing .* 'num_train'"):
        sized_sweep(lambda num_train, power: None, static=static).validate()


def test_static_fields_are_checked():
    sweep = sized_sweep()
    sweep.validate()
    [task, *_] = sweep.state.tasks()
    assert task.static == {"num_train": 1, "power": 1} and len(sweep.state.tasks()) == 4
    run = {"batch_size": 8, "num_updates": 1, "learning_rate": 0.1, "seed": 0, "num_train": 1}
    with pytest.raises(ValueError, match="made for power=1, got a run of power=2: make a task"):
        training.make_runs(task, [run | {"power": 2}])
    with pytest.raises(ValueError, match="made for power=1, got a run of no power"):
        training.make_runs(task, [run])
    with pytest.raises(ValueError, match="static fields needs a function of them"):
        sized_sweep(make_task())
    with pytest.raises(ValueError, match=r"Sweep static must be a tuple of words; write \('power'"):
        sized_sweep(static="power")
    with pytest.raises(ValueError, match="needs the field width, on which the task depends"):
        sized_sweep(static=("width",)).validate()
    with pytest.raises(ValueError, match="Nothing reads the run's power"):
        sized_sweep(lambda num_train: sized(num_train, 1), static=("num_train",)).validate()

    def other_test_set(num_train, power):
        task = sized(num_train, power)
        return dataclasses.replace(task, test={name: a[:power] for name, a in task.test.items()})

    with pytest.raises(ValueError, match=r"num_train, power have \(1, 0\) and \(2, 0\) test and"):
        sized_sweep(other_test_set).validate()


@pytest.mark.slow
def test_a_sweep_with_functions_in_its_protocol_is_made_again_to_be_read(tmp_path):
    protocol = sweeps.Protocol(metric="test_loss", series=lambda run: "all")
    sweep = trainable(tmp_path).replace(protocol=protocol)
    sweep.run(progress=False, pool=POOL)
    with pytest.raises(ValueError, match="make the Sweep as that program did"):
        sweeps.Sweep.open(tmp_path)


def test_runs_are_wanted_once_in_the_order_of_the_plan():
    state = planned([*RUNS, {**RUNS[0], "batch_size": 4.0}])
    assert list(left(state).values()) == RUNS
    assert list(left(state)) == [sweeps.run_id("t", run) for run in RUNS]


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
    state = sweeps.Sweep(make_task, runs, protocol).state
    state.runs()
    for _ in range(2):
        for name, run in left(state).items():
            state.add(record(name, run, run["batch_size"]))
        if not any(run["batch_size"] == 64 for run in state.wanted.values()):
            assert [run["batch_size"] for run in state.extend().values()] == [64]
    with pytest.warns(UserWarning, match="128, which is refused: .* between 1 and the 64"):
        assert state.extend() == {}


def test_a_resumed_sweep_wants_the_same_runs(tmp_path):
    whole = planned()
    train(whole, 2.0)
    records = list(whole.records_by_id.values())
    for count in range(len(records) + 1):
        workdir = tmp_path / str(count)
        with storage.RecordWriter(workdir) as writer:
            for each in records[:count][::-1]:
                writer.append(each)
        resumed = planned(workdir=workdir)
        assert len(resumed.records_by_id) == count
        train(resumed, 2.0)
        assert resumed.wanted == whole.wanted
        assert {n: r.metrics for n, r in resumed.records_by_id.items()} == {
            n: r.metrics for n, r in whole.records_by_id.items()
        }


def test_records_of_other_plans_do_not_count(tmp_path):
    other = record("0" * 16, {"batch_size": 8, "learning_rate": 1.0, "seed": 0}, 1.0)
    state = planned(workdir=tmp_path)
    with storage.RecordWriter(tmp_path) as writer:
        writer.append(other)
    assert state.records() == [] and len(left(state)) == 3
    assert not state.add(other) and state.refresh() == []


def test_runs_that_the_protocol_cannot_tell_apart_are_refused_before_training():
    runs = [run | {"noise": noise} for run in RUNS for noise in (0.0, 0.1)]
    with pytest.raises(ValueError, match=r"differ in noise \(\[0.1\] and \[0\]\).*tune"):
        planned(runs).wanted  # noqa: B018


def test_records_of_others_are_noticed_once(tmp_path):
    sweep = sweeps.Sweep(make_task, RUNS, PROTOCOL, tmp_path)
    name, run = next(iter(sweep.state.wanted.items()))
    with storage.RecordWriter(tmp_path) as writer:
        writer.append(record(name, run, 0.5, curve={"epoch": [1]}, device="a GPU"))
        [noticed] = sweep.state.refresh()
        assert noticed.run_id == name and sweep.state.refresh() == []
        writer.append(record(name, run, 0.5))
        assert sweep.state.refresh() == []
    assert (sweep.records()[0].device, sweep.records()[0].curve) == ("a GPU", None)
    assert sweep.curves([name]) == {name: {"epoch": [1]}}


def test_to_watch_other_workers_leaves_their_records_to_be_noticed(tmp_path):
    sweep = sweeps.Sweep(make_task, RUNS, PROTOCOL, tmp_path)
    name, run = next(iter(sweep.state.wanted.items()))
    with storage.RecordWriter(tmp_path) as writer:
        writer.append(record(name, run, 0.5))
    worker.watch(sweep, progress.Observer(), [])
    assert [each.run_id for each in sweep.state.refresh()] == [name]


def test_of_several_records_of_a_run_the_first_finished_stays():
    state = planned()
    name = next(iter(state.wanted))
    for day, accuracy in ((2, 0.2), (1, 0.1), (3, 0.3)):
        state.add(record(name, RUNS[0], accuracy, finished_at=f"2026-01-0{day}"))
    assert (
        state.records_by_id[name].metrics == {"test_accuracy": 0.1}
        and len(state.records_by_id) == 1
    )


def test_memory_stays_small_while_runs_get_their_records():
    grid = sweeps.grid(batch_size=(4, 8), learning_rate=(0.25, 0.5, 1.0), seed=range(500))
    state = planned(grid)
    fields = {"finished_at": "2026-01-01T00:00:00.000Z", "versions": {"jax": "0"}, "device": "d"}
    grown = []
    tracemalloc.start()
    try:
        for name, run in state.wanted.items():
            line = record(name, run, 0.5, **fields).to_json()
            state.add(storage.Record.from_json(line))
            grown.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(state.records_by_id) == len(grown) == 3000 and state.is_complete()
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
        assert opened.is_complete() and opened.state.wanted == sweep.state.wanted


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


RACE = sweeps.Protocol(
    metric="test_loss", mode="min", search="race", best=3, of=3, max_extensions=0
)
GRID = dataclasses.replace(RACE, search="grid")


def racing(workdir, protocol=RACE):
    """A sweep whose loss is least at learning rates in the middle, trained in a second or two."""
    rates = [2.0**k for k in range(-7, 2)]
    grid = sweeps.grid(batch_size=[16, 64], learning_rate=rates, seed=range(3))
    return sweeps.Sweep(make_task, grid * sweeps.fixed(num_epochs=2), protocol, workdir)


def losses(sweep):
    return {each.run_id: each.metrics for each in sweep.records()}


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    sweep = racing(tmp_path_factory.mktemp("raced"))
    sweep.run(progress=False, pool=POOL)
    return sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    sweep = racing(tmp_path_factory.mktemp("whole"), GRID)
    sweep.run(progress=False, pool=POOL)
    return sweep


def test_a_race_trains_a_part_of_the_runs_and_finds_the_optima_of_the_grid(raced, whole):
    assert raced.is_complete() and whole.is_complete() and len(whole.records()) == 54
    assert len(raced.records()) < 0.7 * 54
    assert losses(raced).items() <= losses(whole).items()
    found = [(each.values, each.mean, each.flags) for each in raced.optima()]
    assert found == [(each.values, each.mean, each.flags) for each in whole.optima()]


def test_the_settings_of_a_race_are_chosen_for_all_of_its_batch_sizes(tmp_path, monkeypatch):
    given = []

    def choose_config(task, runs, **fixed):
        given.extend(run.hparams["batch_size"] for run in runs)
        return training.PoolConfig(**POOL)

    monkeypatch.setattr(training, "choose_config", choose_config)
    racing(tmp_path).run(progress=False)
    assert len(given) == 54 and set(given) == {16, 64}


def test_a_race_that_is_run_again_trains_the_same_runs(raced, tmp_path):
    [path] = (raced.workdir / "records").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / path.name).write_bytes(b"".join(lines[: len(lines) // 2]))
    racing(tmp_path).run(progress=False, pool=POOL)
    assert losses(racing(tmp_path)) == losses(raced)
    counts = [len(file.read_bytes().splitlines()) for file in tmp_path.glob("records/*")]
    assert len(counts) == 2 and sum(counts) == len(lines)  # none was trained twice


def test_two_sweeps_of_one_directory_share_a_race(raced, tmp_path):
    one, other = racing(tmp_path), racing(tmp_path)
    with other.begun():  # has read the records before the first one trains
        one.run(progress=False, pool=POOL)
    other.run(progress=False, pool=POOL)
    assert losses(one) == losses(other) == losses(raced)
    counts = [len(path.read_bytes().splitlines()) for path in tmp_path.glob("records/*")]
    assert sum(counts) == len(raced.records())


def test_a_race_of_a_grid_that_is_trained_keeps_its_records(whole):
    race = racing(whole.workdir)
    assert race.is_complete() and losses(race) == losses(whole)
    assert [each.values for each in race.optima()] == [each.values for each in whole.optima()]


def test_a_grid_trains_what_a_race_has_left_out(raced, tmp_path):
    shutil.copytree(raced.workdir, tmp_path, dirs_exist_ok=True)
    grid = racing(tmp_path, GRID)
    assert not grid.is_complete() and len(grid.records()) == len(raced.records())
    grid.run(progress=False, pool=POOL)
    assert grid.is_complete() and len(grid.records()) == 54
    race = racing(tmp_path)  # and back
    assert race.is_complete() and len(race.records()) == 54


def test_a_race_that_is_opened_is_a_race(raced):
    opened = sweeps.Sweep.open(raced.workdir)
    assert opened.is_complete() and opened.protocols == (RACE,)
    assert opened.optima() == raced.optima()


def test_the_report_of_a_race_that_is_half_done_says_so(raced, tmp_path):
    [path] = (raced.workdir / "records").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    shutil.copy(raced.workdir / "sweep.json", tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / path.name).write_bytes(b"".join(lines[: len(lines) // 2]))
    half = racing(tmp_path)
    assert not half.is_complete()
    report = reports.load_report(half)
    assert report.missing > 0 and "no record yet" in report.describe_missing()
    assert any("no record yet" in answer.text for answer in half.answers())
    assert "unsettled" in {flag for optimum in half.optima() for flag in optimum.flags}
    assert "no record yet" in half.write_report().read_text()
    whole = reports.load_report(raced)
    assert whole.missing == 0 and whole.describe_missing() == ""
    assert not any("no record yet" in answer.text for answer in raced.answers())


def test_a_race_says_how_many_runs_it_may_take(raced):
    state = racing(None).state
    assert len(state.fewest_runs()) <= len(raced.records()) <= len(state.most_runs()) == 54
    assert state.is_race and not racing(None, GRID).state.is_race


def test_seeds_that_the_protocol_asks_for_and_the_grid_lacks_are_a_warning(tmp_path):
    grid = sweeps.grid(batch_size=[16, 64], learning_rate=[0.1, 0.2], seed=range(3))
    grid = [run for run in grid if run["batch_size"] == 16 or run["seed"] < 2]
    protocol = sweeps.Protocol(metric="test_loss", mode="min", best=2, of=3)
    sweep = sweeps.Sweep(make_task, grid, protocol, tmp_path)
    message = (
        r"3 seeds .* for 2 choices, such as 2 for batch_size=64, learning_rate=0.1\. .* of=2\."
    )
    with pytest.warns(UserWarning, match=message), sweep.begun():
        pass
    two = dataclasses.replace(protocol, of=2)
    sweep.replace(protocol=two).warn_of_few_seeds()  # A warning would be an error here.


def test_a_task_of_runs_that_are_not_trained_is_not_called(monkeypatch):
    checked = []
    monkeypatch.setattr(task_check, "check_mixing", lambda *given: checked.append(given))
    trainable(None).validate(mixing=False)
    assert not checked
    trainable(None).validate()
    assert checked

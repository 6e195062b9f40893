"""How workers share the runs of a sweep."""

import contextlib
import random
import types

import pytest

from launch import worker
from launch.worker import Share
from noisegen import sweeps, training


def load(costs, count, index):
    """What a worker begins with."""
    keys = worker.order(costs, Share(index, count))
    return [name for name in sorted(costs, key=keys.get) if not keys[name][0]]


def test_every_run_is_in_one_share():
    costs = {f"{i}": i % 7 + 1 for i in range(100)}
    shares = [load(costs, 4, index) for index in range(4)]
    assert sorted(sum(shares, [])) == sorted(costs)


def test_shares_cost_alike_the_costliest_run_first():
    # At constant steps a run of batch size 32,768 costs 128 times one of 256.
    sizes = [2**k for k in range(8, 16) for _ in range(6)]
    random.Random(0).shuffle(sizes)
    costs = {f"{i}": size for i, size in enumerate(sizes)}
    shares = [load(costs, 4, index) for index in range(4)]
    loads = [sum(map(costs.get, share)) for share in shares]
    assert max(loads) <= 1.1 * min(loads)
    for share in shares:
        assert [costs[name] for name in share] == sorted(map(costs.get, share), reverse=True)
    blind = [sum(sizes[i::4]) for i in range(4)]  # the control: every fourth run
    assert max(blind) > 1.2 * min(blind)


def test_a_worker_helps_with_the_costliest_of_the_others_runs():
    costs = {"a": 8, "b": 4, "c": 2, "d": 1}
    keys = worker.order(costs, Share(0, 2))
    assert sorted(costs, key=keys.get) == ["a", "b", "c", "d"]
    keys = worker.order(costs, Share(1, 2))
    assert sorted(costs, key=keys.get) == ["b", "c", "d", "a"]


def test_a_single_worker_keeps_the_order_of_the_plan():
    costs = {"a": 1, "b": 3, "c": 2}
    keys = worker.order(costs, Share())
    assert sorted(costs, key=keys.get) == ["a", "b", "c"]


def test_more_workers_than_runs_leave_some_without_a_share():
    assert [load({"a": 1, "b": 1}, 3, index) for index in range(3)] == [["a"], ["b"], []]


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "a/b", "1/", "/4", "1/2/3", "0/0"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="must be INDEX/COUNT"):
        Share.parse(text)


def test_a_share_is_an_index_and_a_count():
    assert Share.parse("3/4") == Share(3, 4)


class Ledger:
    """What there is to do, for a worker whose runs are trained in no time."""

    def __init__(self, names):
        self.tasks, self.show = types.SimpleNamespace(name="task"), contextlib.nullcontext()
        self.runs = types.SimpleNamespace(records={})
        self.names, self.reads = names, 0

    def read(self):
        self.reads += 1


@pytest.fixture
def clock(monkeypatch):
    """The seconds that pass for the worker, in a list to be changed."""
    now = [1000.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    return now


def begin(workdir, names, monkeypatch):
    """A worker that is to train some runs, and the files that its crew writes."""
    one, written = worker.Worker(Ledger(names), str(workdir), worker.Options()), []
    beat = one.crew._write
    monkeypatch.setattr(one.crew, "_write", lambda: (written.append(1), beat()))
    one.queue.extend(names)
    return one, written


def take_all(one, clock, seconds):
    """Takes every run, which takes so long each; returns those that are the worker's to train."""
    taken = []
    while one.queue:
        name = one.queue.popleft()
        if one._take(name):
            taken.append(name)
            clock[0] += seconds
            one.ledger.runs.records[name] = {}
            one.crew.release(name)
            one.pace.ended()
    return taken


def test_short_runs_are_claimed_many_at_once(tmp_path, monkeypatch, clock):
    names = [f"{i}" for i in range(1000)]
    one, written = begin(tmp_path, names, monkeypatch)
    assert take_all(one, clock, 0.01) == names
    assert len(written) < 100 and one.ledger.reads < 100
    assert not one.ahead


def test_long_runs_are_claimed_one_by_one(tmp_path, monkeypatch, clock):
    names = [f"{i}" for i in range(10)]
    one, _ = begin(tmp_path, names, monkeypatch)
    for name in names:
        assert one._take(one.queue.popleft())
        with sweeps.Crew(tmp_path) as other:
            assert other.claimed() == {name}
        clock[0] += 1.5
        one.crew.release(name)
        one.pace.ended()


def test_a_worker_claims_the_very_runs_that_its_pool_takes(tmp_path, monkeypatch, clock):
    """A pool takes the runs of one program after those of another, not in the plan's order."""
    planned = [{"nesterov": index % 2 == 0, "seed": index} for index in range(6)]
    runs = {
        name: training.Run(name, run, None)
        for name, run in sweeps.by_run_id("task", planned).items()
    }
    claimed = []

    class Pool:
        def __init__(self, task, settings):
            pass

        def train(self, group, progress, checkpoints, keep_params, take):
            with sweeps.Crew(tmp_path) as other:
                for runs in training.by_constants(group).values():
                    for run in runs:
                        before = other.claimed()
                        assert take(run)
                        claimed.append((other.claimed() - before, {run.id}))
            return iter(())

    monkeypatch.setattr(worker.training, "Pool", Pool)
    one, _ = begin(tmp_path, [], monkeypatch)
    one.ledger.costs, one.ledger.made = dict.fromkeys(runs, 1), runs
    one.ledger.show = types.SimpleNamespace(say=lambda doing: None)
    task = type("Task", (), {"only_batch_size": None})()
    one.ledger.tasks.groups = lambda runs: {task: dict(runs)}
    one.options = one.options._replace(speed=dict.fromkeys(training.MEASURED, 1))
    one._train(runs)
    assert len(claimed) == 6
    assert all(names == taken for names, taken in claimed)


def test_runs_that_end_together_do_not_look_like_short_ones(clock):
    pace = worker.Pace()
    for _ in range(64):
        pace.ended()
    assert pace.runs() == 1
    clock[0] += 32.0
    assert pace.runs() == 2


def test_of_runs_claimed_ahead_those_with_a_record_are_left_out(tmp_path, monkeypatch, clock):
    names = [f"{i}" for i in range(200)]
    one, _ = begin(tmp_path, names, monkeypatch)
    with sweeps.Crew(tmp_path) as other:
        assert other.claim_all(names[100:110]) == set(names[100:110])
        one.ledger.runs.records["50"] = {}
        while one.queue[0] != "90":  # by now many are claimed at once
            if one._take(one.queue.popleft()):
                clock[0] += 0.01
                one.pace.ended()
        claimed_ahead = [name for name in names[90:] if name in one.ahead]
        assert len(claimed_ahead) > 3
        one.ledger.runs.records[claimed_ahead[-1]] = {}  # trained by one that was taken for dead
        taken = take_all(one, clock, 0.01)
    assert claimed_ahead[-1] not in taken and not {*names[100:110]} & {*taken}
    assert len(taken) == 200 - 90 - 10 - 1


def test_a_stop_after_the_last_progress_is_not_lost(tmp_path):
    ledger = types.SimpleNamespace(
        tasks=types.SimpleNamespace(name="task"),
        runs=types.SimpleNamespace(records={}),
        show=contextlib.nullcontext(),
        todo=lambda: {"9f": {}},
    )
    one = worker.Worker(ledger, str(tmp_path), worker.Options())
    one.in_training = True
    one._stop()
    with sweeps.Crew(tmp_path) as other:
        assert other.claim("9f")  # for which this worker would wait
        with pytest.raises(KeyboardInterrupt):
            one.run()

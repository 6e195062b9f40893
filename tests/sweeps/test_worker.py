"""How workers share the runs of a sweep."""

import random
import signal
import types

import pytest

from noisegen import storage, training
from noisegen.sweeps import progress, worker


def load(costs, count, index):
    """What a worker begins with."""
    keys = worker.order(costs, (index, count))
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
    keys = worker.order(costs, (0, 2))
    assert sorted(costs, key=keys.get) == ["a", "b", "c", "d"]
    keys = worker.order(costs, (1, 2))
    assert sorted(costs, key=keys.get) == ["b", "c", "d", "a"]


def test_a_single_worker_keeps_the_order_of_the_plan():
    costs = {"a": 1, "b": 3, "c": 2}
    keys = worker.order(costs, (0, 1))
    assert sorted(costs, key=keys.get) == ["a", "b", "c"]


def test_more_workers_than_runs_leave_some_without_a_share():
    assert [load({"a": 1, "b": 1}, 3, index) for index in range(3)] == [["a"], ["b"], []]


@pytest.mark.parametrize("share", [(4, 4), (-1, 4), (0, 0)])
def test_a_share_is_an_index_below_the_number_of_workers(share):
    with pytest.raises(ValueError, match="0 <= index < count"):
        worker.WorkerOptions(share=share)


class State:
    """The state of a sweep as far as a worker claims its runs."""

    is_race = False

    def __init__(self, names=()):
        self.records_by_id, self.reads = {}, 0
        self.made = {name: training.Run(name, {}, None) for name in names}

    def runs(self):
        return self.made

    todo = runs

    def by_task(self, runs):
        task = type("Task", (), {"only_batch_size": None, "static": {}})()
        return {task: dict(runs)}

    def refresh(self):
        self.reads += 1
        return []


@pytest.fixture
def clock(monkeypatch):
    """The seconds that pass for the worker, in a list to be changed."""
    now = [1000.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    return now


def begin(workdir, names, monkeypatch, **options):
    """A worker that is to train some runs, and a list that grows when it writes its claims."""
    sweep = types.SimpleNamespace(workdir=workdir, state=State(names))
    one = worker.Worker(sweep, worker.WorkerOptions(**options), progress.Observer())
    written, write = [], one.claims._write
    monkeypatch.setattr(one.claims, "_write", lambda: (written.append(1), write()))
    one._queue = dict(sweep.state.made)
    return one, written


def take_all(one, clock, seconds):
    """Takes every run, which takes so long each; returns those that are the worker's to train."""
    taken = []
    for run in list(one._queue.values()):
        if one._take(run):
            taken.append(run.id)
            clock[0] += seconds
            one.state.records_by_id[run.id] = {}
            one.claims.release(run.id)
            one._pace.ended()
    return taken


def test_short_runs_are_claimed_many_at_once(tmp_path, monkeypatch, clock):
    names = [f"{i}" for i in range(1000)]
    one, written = begin(tmp_path, names, monkeypatch)
    assert take_all(one, clock, 0.01) == names
    assert len(written) < 100 and one.state.reads < 100
    assert not one._claimed


def test_long_runs_are_claimed_one_by_one(tmp_path, monkeypatch, clock):
    names = [f"{i}" for i in range(10)]
    one, _ = begin(tmp_path, names, monkeypatch)
    for run in list(one._queue.values()):
        assert one._take(run)
        with storage.Claims(tmp_path) as other:
            assert other.claimed_by_others() == {run.id}
        clock[0] += 1.5
        one.claims.release(run.id)
        one._pace.ended()


def test_a_worker_claims_the_very_runs_that_its_pool_takes(tmp_path, monkeypatch, clock):
    """A pool takes the runs of one program after those of another, not in the plan's order."""
    runs = {
        str(index): training.Run(str(index), {"nesterov": index % 2 == 0, "seed": index}, None)
        for index in range(6)
    }
    claimed = []

    class Pool:
        def train(self, group, progress, checkpoints, keep_params, take, more):
            with storage.Claims(tmp_path) as other:
                for runs in training.by_constants(group).values():
                    for run in runs:
                        before = other.claimed_by_others()
                        assert take(run)
                        claimed.append((other.claimed_by_others() - before, {run.id}))
            return iter(())

    one, _ = begin(tmp_path, [], monkeypatch, pool=dict.fromkeys(training.AUTOTUNED, 1))
    monkeypatch.setattr(one, "make_pool", lambda task, config: Pool())
    monkeypatch.setattr(one, "_sorted", lambda runs: runs)
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
    with storage.Claims(tmp_path) as other:
        assert other.claim_all(names[100:110]) == set(names[100:110])
        one.state.records_by_id["50"] = {}
        for run in list(one._queue.values())[:90]:  # by now many are claimed at once
            if one._take(run):
                clock[0] += 0.01
                one._pace.ended()
        claimed_ahead = [name for name in names[90:] if name in one._claimed]
        assert len(claimed_ahead) > 3
        one.state.records_by_id[claimed_ahead[-1]] = {}  # trained by one that was taken for dead
        taken = take_all(one, clock, 0.01)
    assert claimed_ahead[-1] not in taken and not {*names[100:110]} & {*taken}
    assert len(taken) == 200 - 90 - 10 - 1


def test_a_stop_after_the_last_progress_is_not_lost(tmp_path, monkeypatch):
    one, _ = begin(tmp_path, ["9f"], monkeypatch)
    one._in_training = True
    one._stop(signal.SIGTERM)
    with storage.Claims(tmp_path) as other:
        assert other.claim_all(["9f"])  # for which this worker would wait
        with pytest.raises(KeyboardInterrupt):
            one.run()


def test_a_repeated_signal_of_slurm_is_ignored_and_a_second_ctrl_c_is_not(tmp_path, monkeypatch):
    one, _ = begin(tmp_path, ["9f"], monkeypatch)
    one._in_training = True
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
        one._stop(number)  # the runs in training are about to be checkpointed
    with pytest.raises(KeyboardInterrupt):
        one._stop(signal.SIGINT)


def test_a_run_of_another_program_allows_time_to_compile(tmp_path, monkeypatch, clock):
    one, _ = begin(tmp_path, [], monkeypatch, heartbeat_timeout=10.0)
    runs = [training.Run(str(i), {"nesterov": i > 1, "seed": i}, None) for i in range(4)]
    one._queue = {run.id: run for run in runs}
    timeouts = []
    for run in runs:
        assert one._take(run)
        timeouts.append(storage.read_workers(tmp_path)[0].timeout)
        clock[0] += 1.5
        one._progress([training.Progress(run, 1)])
    assert timeouts == [60.0, 10.0, 60.0, 10.0]


def test_runs_claimed_ahead_are_those_that_the_pool_takes_next(tmp_path, monkeypatch, clock):
    runs = {
        str(i): training.Run(str(i), {"nesterov": i % 2 == 0, "seed": i}, None) for i in range(8)
    }
    taken = []

    class Pool:
        def train(self, group, progress, checkpoints, keep_params, take, more):
            for runs in training.by_constants(group).values():
                taken.extend(run.id for run in runs if take(run))
            return iter(())

    one, _ = begin(tmp_path, [], monkeypatch, pool=dict.fromkeys(training.AUTOTUNED, 1))
    monkeypatch.setattr(one, "make_pool", lambda task, config: Pool())
    monkeypatch.setattr(one, "_sorted", lambda runs: runs)
    monkeypatch.setattr(one._pace, "runs", lambda: 2)
    claimed = []
    monkeypatch.setattr(one.claims, "claim_all", lambda names: claimed.append(names) or names)
    one._train(runs)
    assert taken == ["0", "2", "4", "6", "1", "3", "5", "7"]
    assert claimed == [{"0", "2"}, {"4", "6"}, {"1", "3"}, {"5", "7"}]

"""How workers share the runs of a sweep."""

import contextlib
import random
import types

import pytest

from launch import worker
from launch.worker import Share
from noisegen import sweeps


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

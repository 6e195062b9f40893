"""Tests that each run is claimed once, and that runs of dead workers become free."""

import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time

import pytest

from noisegen import storage
from noisegen.storage import claims as claims_lib


def write(workdir, name, **changes):
    """Writes the file of a worker on another host that gives no further heartbeat."""
    fields = {"host": "elsewhere", "pid": 1, "heartbeat": 1, "timeout": 60.0, "doing": "training"}
    fields |= {"runs": {"a": 5}, "settings": {}}
    (workdir / "workers").mkdir(exist_ok=True)
    (workdir / "workers" / f"{name}.json").write_text(json.dumps(fields | changes))


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock by a list with the current time in seconds."""
    now = [1000.0]
    monkeypatch.setattr(claims_lib.time, "monotonic", lambda: now[0])
    return now


def test_a_run_is_claimed_by_one_worker_until_it_is_released(tmp_path):
    with storage.Claims(tmp_path) as one, storage.Claims(tmp_path) as other:
        assert one.claim_all(["a"]) and not other.claim_all(["a"]) and other.claim_all(["b"])
        assert one.claimed_by_others() == {"b"} and other.claimed_by_others() == {"a"}
        one.release("a")
        one.heartbeat()
        other.claimed_by_others()
        assert other.claim_all(["a"]) and not one.claim_all(["a"])
    assert not (tmp_path / "workers").exists()


def test_claiming_several_runs_leaves_out_runs_of_others(tmp_path):
    with storage.Claims(tmp_path) as one, storage.Claims(tmp_path) as other:
        assert one.claim_all(["a", "b", "c"]) == {"a", "b", "c"}
        assert other.claim_all(["c", "d", "a"]) == {"d"}
        assert other.claimed_by_others() == {"a", "b", "c"} and one.claimed_by_others() == {"d"}
        assert other.claim_all(["a"]) == one.claim_all(["d"]) == one.claim_all([]) == set()
        one.close()
        other.claimed_by_others()
        assert other.claim_all(["a", "b"]) == {"a", "b"}


def test_claiming_many_runs_costs_as_much_as_one(tmp_path, monkeypatch):
    write(tmp_path, "elsewhere", runs={"z": 0})
    one = storage.Claims(tmp_path)
    done = []
    replace, read = pathlib.Path.replace, pathlib.Path.read_text
    monkeypatch.setattr(pathlib.Path, "replace", lambda *a: done.append("write") or replace(*a))
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *a: done.append("read") or read(*a))
    assert len(one.claim_all(map(str, range(100)))) == 100
    assert done == ["write", "read", "read"]  # Its own file is read, too.


def test_a_worker_that_leaves_releases_its_runs(tmp_path):
    with storage.Claims(tmp_path) as one:
        with storage.Claims(tmp_path) as other:
            assert other.claim_all(["a"]) and not one.claim_all(["a"])
        assert one.claimed_by_others() == set()
        assert one.claim_all(["a"])


def test_the_last_worker_removes_the_directory(tmp_path):
    with storage.Claims(tmp_path) as one, storage.Claims(tmp_path) as other:
        one.claim_all(["a"])
        other.claim_all(["b"])
        (tmp_path / "workers" / ".killed").write_text(
            "{"
        )  # Killed before its first claim was visible.
        other.close()
        assert other.claimed_by_others() == {"a"}
    assert not (tmp_path / "workers").exists()


def test_progress_is_published_for_claimed_runs_only(tmp_path):
    watcher = storage.Claims(tmp_path)
    with storage.Claims(tmp_path) as one:
        one.claim_all(["a"])
        one.release("a")
        one.claim_all(["b"])
        one._beaten_at = -float("inf")
        one.report_progress({"a": 7, "b": 8})
        [worker] = watcher.others()
    assert (worker.name, worker.runs, worker.doing) == (one.name, {"b": 8}, "training")


def test_progress_is_published_at_most_once_a_second(tmp_path, clock):
    with storage.Claims(tmp_path) as one:
        one.claim_all(["a"])
        one.report_progress({"a": 0})  # The first report is published at once.
        path = tmp_path / "workers" / f"{one.name}.json"
        before = path.read_bytes()
        clock[0] += 0.9
        one.report_progress({"a": 1})
        assert path.read_bytes() == before
        clock[0] += 0.2
        one.report_progress({"a": 2})
        assert json.loads(path.read_text())["runs"] == {"a": 2}


def test_a_silent_worker_is_dead_after_its_timeout_on_our_clock(tmp_path, clock):
    write(tmp_path, "slow", timeout=600.0)
    write(tmp_path, "quick", runs={"b": 0})
    os.utime(tmp_path / "workers" / "quick.json", (0, 0))  # Clocks of other hosts are ignored.
    one = storage.Claims(tmp_path)
    assert one.claimed_by_others() == {"a", "b"}
    clock[0] += 59
    assert one.claimed_by_others() == {"a", "b"}
    write(tmp_path, "quick", runs={"b": 9}, heartbeat=2)
    assert one.claimed_by_others() == {"a", "b"}
    clock[0] += 59
    assert one.claimed_by_others() == {"a", "b"}
    clock[0] += 2
    assert one.claimed_by_others() == {"a"}
    assert not (tmp_path / "workers" / "quick.json").exists()
    assert one.claim_all(["b"])


def test_an_ended_process_of_this_host_is_dead_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write(tmp_path, "ended", host=claims_lib._host(), pid=process.pid)
    write(tmp_path, "elsewhere", pid=process.pid, runs={"b": 0})
    assert storage.Claims(tmp_path).claimed_by_others() == {"b"}


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_zombie_process_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    write(tmp_path, "ended", host=claims_lib._host(), pid=process.pid)
    assert storage.Claims(tmp_path).claimed_by_others() == set()
    assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/comm"), reason="needs /proc")
def test_a_process_with_a_name_of_any_bytes_is_alive(tmp_path):
    name = "open('/proc/self/comm', 'wb').write(b'pr\\xfcf'); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", name], **pipes) as process:
        process.stdout.readline()
        write(tmp_path, "x", host=claims_lib._host(), pid=process.pid)
        assert storage.Claims(tmp_path).claimed_by_others() == {"a"}
        process.communicate(b"\n")


def test_has_ended_recognizes_ended_writers_of_this_host():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = claims_lib.writer_name()
    ended = mine.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    assert claims_lib.has_ended(ended) and not claims_lib.has_ended(mine)
    assert not claims_lib.has_ended(f"elsewhere-{process.pid}-00")
    assert not any(map(claims_lib.has_ended, ("", "a", "a-b", "a-b-c")))


def test_a_worker_mistaken_for_dead_returns_with_its_next_heartbeat(tmp_path, clock):
    one, other = storage.Claims(tmp_path, 60.0), storage.Claims(tmp_path)
    assert one.claim_all(["a"]) and other.claimed_by_others() == {"a"}
    clock[0] += 61
    assert other.claimed_by_others() == set()
    one.heartbeat()
    assert other.claimed_by_others() == {"a"}


def test_the_timeout_for_compiling_lasts_until_training_begins(tmp_path, clock):
    one, other = storage.Claims(tmp_path, 60.0), storage.Claims(tmp_path)
    one.heartbeat("compiling", 900.0)
    assert one.claim_all(["a"])
    clock[0] += 899
    other.claimed_by_others()  # Sees the heartbeat for the first time.
    clock[0] += 899
    assert other.claimed_by_others() == {"a"}
    one.report_progress({"a": 1})
    assert other.claimed_by_others() == {"a"}
    clock[0] += 61
    assert other.claimed_by_others() == set()


def test_settings_are_shared_by_live_workers_only(tmp_path, clock):
    one, other = storage.Claims(tmp_path, 60.0), storage.Claims(tmp_path)
    assert other.shared_settings("device") is None
    one.share_settings("device", {"lanes": 4})
    assert other.shared_settings("device") == {"lanes": 4}
    assert other.shared_settings("another") is None
    clock[0] += 61
    assert other.shared_settings("device") is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 100_000, "[]", "7", '{"pid": 1}', b"\xff\xfe", json.dumps({"runs": "abc"})],
)
def test_files_that_are_not_of_workers_are_ignored(tmp_path, content):
    write(tmp_path, "real")
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "workers" / "x.json").write_bytes(content)
    assert [worker.name for worker in storage.read_workers(tmp_path)] == ["real"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("runs", ["a"]),
        ("timeout", "60"),
        ("pid", 1.5),
        ("runs", {"a": "many"}),
        ("runs", {"a": -1}),
        ("runs", {"a": 10**400}),
        ("runs", {"a": None}),
        ("settings", {"key": [1]}),
    ],
)
def test_files_with_fields_of_the_wrong_type_are_ignored(tmp_path, field, value):
    write(tmp_path, "x", **{field: value})
    assert storage.read_workers(tmp_path) == []
    assert storage.Claims(tmp_path).claimed_by_others() == set()


def test_an_impossible_process_id_is_of_a_dead_worker(tmp_path):
    write(tmp_path, "x", host=claims_lib._host(), pid=10**20)
    assert storage.Claims(tmp_path).claimed_by_others() == set()


def test_an_unwritable_directory_does_not_stop_a_worker(tmp_path):
    (tmp_path / "workers").write_text("")
    with storage.Claims(tmp_path) as one:
        assert one.claim_all(["a"])


def test_the_content_of_a_file_cannot_remove_another_file(tmp_path, clock):
    (tmp_path / "precious.json").write_text("x")
    write(tmp_path, "bad")
    path = tmp_path / "workers" / "bad.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "../precious"}))
    claims = storage.Claims(tmp_path)
    assert claims.others() == []
    clock[0] += 1e6
    claims.others()
    assert (tmp_path / "precious.json").exists()


def test_a_full_disk_does_not_stop_a_worker(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with storage.Claims(tmp_path) as one:
        monkeypatch.setattr(claims_lib.pathlib.Path, "write_text", full)
        assert one.claim_all(["a"])  # The next record will report the full disk.


def _claim_all(workdir, names, start, claimed, size):
    claims = storage.Claims(workdir)
    start.wait()
    for first in range(0, len(names), size):
        for name in claims.claim_all(names[first : first + size]):
            claimed.put((name, os.getpid()))
    time.sleep(2)  # Claims hold as long as the process exists.
    claimed.put(None)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_processes_that_claim_at_once_never_share_a_run(tmp_path, size):
    context = multiprocessing.get_context("spawn")
    names, count = [f"{i}" for i in range(100)], 3
    start, claimed = context.Barrier(count), context.Queue()
    arguments = (tmp_path, names, start, claimed, size)
    processes = [context.Process(target=_claim_all, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    found, left = [], count
    while left:
        item = claimed.get(timeout=60)
        if item is None:
            left -= 1
        else:
            found.append(item)
    for process in processes:
        process.join()
    taken = [name for name, _ in found]
    # Workers that collide may both lose the runs that they claimed at once.
    assert len(taken) == len(set(taken)) > 50 / size

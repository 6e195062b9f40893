"""Workers as Ray tasks, on real clusters of several nodes on this host."""

import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

import psutil
import pytest

from launch import ray_plan, ray_task
from launch.ray_cluster import Needs
from noisegen import sweeps

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 200  # the longest that anything here is waited for

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)


def tables(workdir):
    return {path.name: path.read_bytes() for path in workdir.glob("table*")}


def metrics(workdir):
    return {r["run_id"]: (r["metrics"], r["curve"], r["status"]) for r in sweeps.read(workdir)}


def wait_until(condition, process=None):
    """Waits for a condition, while a process goes on; what the condition gave."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        time.sleep(0.01)
    return found


def alive(pid):
    """Whether a process runs; one that nobody has waited for yet does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def worker_in_training(workdir, process, but=None, doing=""):
    """Waits for a worker that has runs; the number of its process."""

    def look():
        workers = [w for w in sweeps.crew.workers(workdir) if w.runs and doing in w.doing]
        return next((w.pid for w in workers if w.pid != but and alive(w.pid)), None)

    return wait_until(look, process)


@contextlib.contextmanager
def running(words, environment, **more):
    """A Python process of a test, which it does not outlive."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | more
    command = [sys.executable, *words]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
    try:
        yield process
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()


@pytest.fixture(scope="module")
def ray_environment(environment):
    """Variables of processes with Ray, whose files are in a directory of their own."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a short name, as it holds sockets
    yield environment | {"RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(ray_environment):
    """A cluster of two nodes with a processor core each: its address, and what ends a node."""
    script = str(ROOT / "tests" / "launch" / "ray_nodes.py")
    with running([script], ray_environment, stderr=subprocess.DEVNULL) as process:

        def end_node_of(pid):
            process.stdin.write(f"{pid}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        address = process.stdout.readline().strip()
        yield types.SimpleNamespace(address=address, end_node_of=end_node_of)


@pytest.fixture(scope="module")
def ordeal(cluster, tiny, ray_environment, tmp_path_factory):
    """The tiny sweep on the cluster: Ctrl-C, then a worker is killed, then a node, then the end."""
    workdir = tmp_path_factory.mktemp("ordeal") / "sweep"
    flags = ("--launcher=ray", f"--ray.address={cluster.address}", "--ray.tasks=2")
    words = ["-m", "launch.sweep", *tiny, *flags, f"--workdir={workdir}", "--patience=20"]
    with running(words, ray_environment) as driver:
        interrupted = worker_in_training(workdir, driver)
        driver.send_signal(signal.SIGINT)
        _, stopped = driver.communicate(timeout=SECONDS)
        stopped_code, stopped_worker_alive = driver.returncode, alive(interrupted)
    after_stop = metrics(workdir)

    with running(words, ray_environment) as driver:
        killed = worker_in_training(workdir, driver)
        os.kill(killed, signal.SIGKILL)
        lost = worker_in_training(workdir, driver, but=killed)
        cluster.end_node_of(lost)
        wait_until(lambda: not alive(lost), driver)
        out, err = driver.communicate(timeout=SECONDS)
    return types.SimpleNamespace(**locals())


@needs_ray
def test_ctrl_c_cancels_the_tasks_and_says_how_to_go_on(ordeal):
    assert ordeal.stopped_code == 130, ordeal.stopped
    assert "To go on, give the same command again" in ordeal.stopped
    assert "Traceback" not in ordeal.stopped
    assert not ordeal.stopped_worker_alive
    assert len(ordeal.after_stop) < 24


@needs_ray
def test_killed_workers_and_nodes_change_nothing(ordeal, finished):
    assert ordeal.driver.returncode == 0, ordeal.err
    found = metrics(ordeal.workdir)
    assert found == metrics(finished[0])
    assert tables(ordeal.workdir) == tables(finished[0]) and len(tables(ordeal.workdir)) == 1
    assert all(found[name] == kept for name, kept in ordeal.after_stop.items())
    assert ordeal.out.split("\nReport: ")[0] == finished[1].stdout.split("\nReport: ")[0]


@needs_ray
def test_progress_is_that_of_all_tasks_together(ordeal):
    assert "The grid ends at" in ordeal.err and "24/24 runs" in ordeal.err.splitlines()[-1]
    assert not any(word in ordeal.err for word in ("Traceback", "ray", "failed"))
    assert not list(ordeal.workdir.glob("workers/*"))
    assert "--only" not in sweeps.read_sweep(ordeal.workdir)["command"]
    assert {"task-0.log", "task-1.log"} <= {p.name for p in ordeal.workdir.glob("logs/*")}


@needs_ray
def test_what_no_node_has_is_told_at_once(cluster, call, ray_environment, tiny, tmp_path):
    flags = ("--launcher=ray", f"--ray.address={cluster.address}", "--ray.num_cpus=64")
    done = call("sweep", *tiny, *flags, f"--workdir={tmp_path / 'never'}", **ray_environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "No node of the Ray cluster has the 64 CPUs" in done.stderr
    assert "the nodes have 1 CPU: give a smaller --ray.num_cpus" in done.stderr


LOCAL = """
import json, psutil, launch.ray_cluster as cluster
with cluster.Cluster("local") as ray:
    ours = psutil.Process().children(recursive=True)
    addresses = {c.laddr.ip for p in ours for c in p.net_connections() if c.status == "LISTEN"}
    found = sorted(addresses), [p.pid for p in ours], ray.nodes()
print(json.dumps(found))
"""


@needs_ray
def test_a_cluster_of_this_host_is_for_nobody_else_and_ends_with_its_sweep(ray_environment):
    with running(["-W", "ignore", "-c", LOCAL], ray_environment) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    addresses, pids, nodes = json.loads(out)
    assert addresses and all(ip in ("127.0.0.1", "::ffff:127.0.0.1") for ip in addresses)
    assert len(nodes) == 1 and nodes[0]["object_store_memory"] <= 128 << 20
    wait_until(lambda: not any(map(alive, pids)))


@needs_ray
@pytest.mark.slow
def test_a_dry_run_says_how_many_tasks_of_how_many_runs(call, ray_environment, tiny, tmp_path):
    flags = ("--launcher=ray", "--ray.address=local", "--ray.num_cpus=0.5", "--dry_run")
    workdir = tmp_path / "none"
    done = call("sweep", *tiny, *flags, f"--workdir={workdir}", **ray_environment)
    assert done.returncode == 0, done.stderr
    *_, cost, plan = done.stdout.splitlines()
    assert cost.startswith("12 runs, ") and not workdir.exists()
    assert " tasks of " in plan and "with 0.5 CPUs each" in plan
    assert "A single one would take about 0:0" in plan


REFUSED = {
    "not installed": ((), ["needs Ray", "pip install '.[ray]'"]),
    "nobody there": (("--ray.address=127.0.0.1:9",), ["nobody answers there", "`ray start"]),
    "no address": (("--ray.address=here",), ["auto, local, or HOST:PORT"]),
    "two launchers": (("--workers=2",), ["--workers is for this host"]),
    "flag": (("--ray.adress=auto",), ["Did you mean: ray.address"]),
    "part of several GPUs": (("--ray.num_gpus=1.5",), ["a whole number of GPUs, or part of one"]),
    "minutes": (("--ray.minutes=0",), ["must be positive"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(case, call, ray_environment, tiny, tmp_path):
    flags, words = REFUSED[case]
    (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')")
    workdir = f"--workdir={tmp_path / 'never'}"
    more = ray_environment | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = call("sweep", *tiny, "--launcher=ray", *flags, workdir, **more)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("error: ") and all(word in done.stderr for word in words)


def test_a_worker_that_is_tied_stops_with_its_input(environment, tiny, tmp_path):
    flags = [flag for flag in tiny if "num_epochs" not in flag]
    words = ["-m", "launch.sweep", *flags, "--config.run.num_epochs=3000.0", "--tied"]
    with running([*words, f"--workdir={tmp_path / 'sweep'}"], environment) as worker:
        worker_in_training(tmp_path / "sweep", worker)
        assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(SECONDS) == 130
        assert "Stopped; finished runs and the last checkpoint" in worker.stderr.read()


def test_a_worker_trains_its_own_runs_and_leaves(call, tiny, finished, tmp_path):
    planned = [r for r in sweeps.read(finished[0]) if r["run"]["learning_rate"] < 0.01]
    names = [record["run_id"] for record in planned][:3]
    flags = (f"--only={','.join(names)}", "--noreport", f"--workdir={tmp_path / 'sweep'}")
    done = call("sweep", *tiny, *flags)
    assert done.returncode == 0, done.stderr
    assert {r["run_id"] for r in sweeps.read(tmp_path / "sweep")} == set(names)


def test_a_task_returns_the_last_line_of_its_command_or_fails(tmp_path):
    def run(script, log=None):
        return ray_task.run([sys.executable, "-c", script], str(tmp_path), {"HUE": "blue"}, log)

    log = tmp_path / "task.log"
    assert run("import os; print('first'); print(os.environ['HUE'])", str(log)) == "blue"
    assert log.read_text() == "first\nblue\n"
    assert run("import sys; sys.exit('error: too blue')") == "error: too blue"
    with pytest.raises(RuntimeError, match="exit code 3 on .*: oh"):
        run("print('oh'); raise SystemExit(3)")
    missing = ray_task.run(["python"], str(tmp_path / "missing"), {}, None)
    assert missing.startswith("error: ") and "every node must see this directory" in missing


TASK = """
import subprocess, sys
from launch import ray_task
command = [sys.executable, "-c", "import os; print(os.getpid(), flush=True); os.read(0, 1)"]
if sys.argv[2:]:  # the node, which starts the task
    task = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
    print(task.pid, flush=True)
    task.wait()
else:
    ray_task.run(command, "/", {}, sys.argv[1])
"""


@pytest.mark.parametrize("victim", ["task", "node"])
def test_a_command_ends_with_its_task_and_its_node(victim, environment, tmp_path):
    log = tmp_path / "log"
    with running(["-c", TASK, str(log), TASK], environment) as node:
        task = int(node.stdout.readline())
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), node)
        command = int(log.read_text())
        assert alive(command)
        os.kill({"task": task, "node": node.pid}[victim], signal.SIGKILL)
        try:
            wait_until(lambda: not (alive(command) or alive(task)))
        finally:
            for pid in filter(alive, (task, command)):
                os.kill(pid, signal.SIGKILL)


def test_a_node_fits_as_many_tasks_as_its_scarcest_resource_allows():
    assert Needs(1, 0).fit({"CPU": 4.0, "GPU": 1.0}) == 4
    assert Needs(1, 0.25).fit({"CPU": 8.0, "GPU": 1.0}) == 4
    assert Needs(1, 1).fit({"CPU": 8.0}) == Needs(2, 0).fit({}) == 0
    assert Needs(0.1, 0).fit({"CPU": 0.3}) == 3
    assert str(Needs(0.5, 2)) == "0.5 CPUs and 2 GPUs" and str(Needs(1, 0)) == "1 CPU"


COSTS = {f"{i:02}": 100 * (1 + i % 3) for i in range(30)}  # 6000 examples


@pytest.mark.parametrize(
    "seconds, lanes, at_once, given, tasks",
    [
        (3000, 1, 2, None, 10),  # as many as take five minutes
        (3000, 8, 2, None, 3),  # but no lane idle
        (3000, 1, 16, None, 16),  # and no node
        (3000, 1, 99, None, 30),
        (60, 1, 0, None, 1),
        (60, 1, 2, 7, 7),
        (60, 1, 2, 70, 30),
    ],
)
def test_runs_are_dealt_to_tasks_of_equal_cost(seconds, lanes, at_once, given, tasks):
    measured = ray_plan.Measured(seconds / sum(COSTS.values()), lanes, {})
    dealt = ray_plan.deal(COSTS, at_once, ray_plan.Options(tasks=given), measured)
    assert len(dealt) == tasks and sorted(sum(dealt, [])) == sorted(COSTS)
    costs = [[COSTS[name] for name in names] for names in dealt]
    assert all(each == sorted(each, reverse=True) for each in costs)
    assert max(map(sum, costs)) - min(map(sum, costs)) <= max(COSTS.values())

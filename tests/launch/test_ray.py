"""Workers as Ray tasks, on real clusters of several nodes on this host."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types

import pytest

from launch import ray
from noisegen import storage
from tests.launch.harness import (
    ROOT,
    SECONDS,
    TINY,
    TWO_LANES,
    alive,
    changed,
    command,
    last_error,
    metrics,
    printed_report,
    running,
    tables,
    training,
    wait_until,
)

# Long enough that a worker is seen in training before it ends.
LONGER = changed(TINY, num_epochs=40.0)


def needs_ray(test):
    """Marks a test of a real Ray cluster."""
    missing = importlib.util.find_spec("ray") is None
    skip = pytest.mark.skipif(missing, reason="Ray is not installed: pip install '.[ray]'")
    return pytest.mark.slow(skip(test))


def worker_in_training(workdir, process, but=None):
    """Waits for a worker that trains; the number of its process."""

    def look():
        return next((pid for pid in training(workdir) if pid != but and alive(pid)), None)

    return wait_until(look, process)


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
    with running(
        [sys.executable, script], ray_environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:

        def end_node_of(pid):
            process.stdin.write(f"{pid}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        address = process.stdout.readline().strip()
        yield types.SimpleNamespace(address=address, end_node_of=end_node_of)


@pytest.fixture(scope="module")
def ordeal(cluster, ray_environment, tmp_path_factory):
    """A sweep on the cluster: Ctrl-C, then a worker is killed, then a node, then the end."""
    workdir = tmp_path_factory.mktemp("ordeal") / "sweep"
    flags = ("--launcher=ray", f"--ray.address={cluster.address}", f"--workdir={workdir}")
    words = command("sweep", *LONGER, *flags, "--heartbeat_timeout=20")
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


@pytest.fixture(scope="module")
def undisturbed(call, tmp_path_factory):
    """The same sweep in one process: its directory, and what it printed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "sweep"
    done = call("sweep", *LONGER, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@needs_ray
def test_ctrl_c_cancels_the_tasks_and_says_how_to_go_on(ordeal):
    assert ordeal.stopped_code == 130, ordeal.stopped
    assert "give the same command again" in ordeal.stopped
    assert "Traceback" not in ordeal.stopped
    assert not ordeal.stopped_worker_alive
    assert len(ordeal.after_stop) < 24


@needs_ray
def test_killed_workers_and_nodes_change_nothing(ordeal, undisturbed):
    workdir, printed = undisturbed
    assert ordeal.driver.returncode == 0, ordeal.err
    found = metrics(ordeal.workdir)
    assert found == metrics(workdir)
    assert tables(ordeal.workdir) == tables(workdir) and len(tables(workdir)) == 1
    assert all(found[name] == kept for name, kept in ordeal.after_stop.items())
    assert printed_report(ordeal.out) == printed_report(printed)


@needs_ray
def test_progress_is_that_of_all_workers_together(ordeal):
    count = len(metrics(ordeal.workdir))
    assert f"{count}/{count} runs" in ordeal.err.splitlines()[-1]
    assert ("The grid is extended" in ordeal.err) == (count > 12)  # the planned runs
    assert not any(word in ordeal.err for word in ("Traceback", "died"))
    assert not list(ordeal.workdir.glob("workers/*"))
    assert "--launcher=ray" in storage.read_sweep(ordeal.workdir)["command"]
    logs = {path.name for path in ordeal.workdir.glob("logs/*")}
    assert logs == {"worker-0.log", "worker-1.log", "ray.log"}  # as many as fit the cluster


@needs_ray
@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--ray.num_cpus=64", ["No node of the Ray cluster has the 64 CPUs", "the nodes have"]),
        ("--ray.num_cpus=-1", ["Ray refuses the --ray flags"]),
    ],
)
def test_what_no_node_has_is_told_at_once(cluster, call, ray_environment, tmp_path, flag, words):
    flags = ("--launcher=ray", f"--ray.address={cluster.address}", flag)
    done = call("sweep", *TINY, *flags, f"--workdir={tmp_path / 'never'}", **ray_environment)
    line = last_error(done)
    assert all(word in line for word in words), line
    assert not (tmp_path / "never").exists()


LOCAL = """
import json, psutil
from launch import ray
from launch.driver import WorkerCommand
from noisegen.sweeps.worker import WorkerOptions
command = WorkerCommand(workdir=".", experiment="", options=WorkerOptions())
executor = ray.RayExecutor(command, ray.RayConfig(address="local"), None)
ours = psutil.Process().children(recursive=True)
addresses = {c.laddr.ip for p in ours for c in p.net_connections() if c.status == "LISTEN"}
executor.stop()
print(json.dumps([sorted(addresses), [p.pid for p in ours], executor.num_workers]))
"""


@needs_ray
def test_a_cluster_of_this_host_is_for_nobody_else_and_ends_with_its_sweep(ray_environment):
    words = [sys.executable, "-W", "ignore", "-c", LOCAL]
    with running(words, ray_environment) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    addresses, pids, num_workers = json.loads(out.splitlines()[-1])
    assert addresses and all(ip in ("127.0.0.1", "::ffff:127.0.0.1") for ip in addresses)
    assert num_workers == len(os.sched_getaffinity(0))
    wait_until(lambda: not any(map(alive, pids)))


@needs_ray
def test_a_dry_run_says_how_many_workers_fit(call, ray_environment, tmp_path):
    flags = ("--launcher=ray", "--ray.address=local", "--ray.num_cpus=0.5", "--dry_run")
    done = call("sweep", *TINY, *flags, f"--workdir={tmp_path / 'none'}", **ray_environment)
    assert done.returncode == 0, done.stderr
    *_, cost, _, plan = done.stdout.splitlines()
    assert cost.startswith("12 runs, ") and not (tmp_path / "none").exists()
    assert plan == f"{2 * len(os.sched_getaffinity(0))} workers on Ray, with 0.5 CPUs each."


REFUSED = {
    "not installed": ((), ["needs Ray", "pip install '.[ray]'"]),
    "nobody there": (("--ray.address=127.0.0.1:9",), ["nobody answers there", "`ray start"]),
    "no address": (("--ray.address=here",), ["auto, local, or HOST:PORT"]),
    "no number": (("--workers=two",), ["--workers=two"]),
    "flag": (("--ray.adress=auto",), ["ray.address"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(case, call, tmp_path):
    flags, words = REFUSED[case]
    more = {}
    if case == "not installed":
        (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')")
        more["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    workdir = f"--workdir={tmp_path / 'never'}"
    done = call("sweep", *TINY, "--launcher=ray", *flags, workdir, **more)
    line = last_error(done)
    assert all(word in line for word in words), line
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_worker_stops_with_its_input(environment, call, tmp_path):
    flags = (*changed(TINY, num_epochs=3000.0), f"--workdir={tmp_path / 'sweep'}")
    # A sweep that is begun: the first process is stopped as soon as it trains.
    with running(command("sweep", *flags), environment) as first:
        worker_in_training(tmp_path / "sweep", first)
        first.send_signal(signal.SIGINT)
        assert first.wait(SECONDS) == 130
    pool = [flag.partition("=") for flag in TWO_LANES]
    options = {name.removeprefix("--pool."): int(value) for name, _, value in pool}
    words = command(
        "worker",
        f"--workdir={tmp_path / 'sweep'}",
        "--experiment=experiments/digits.py",
        f"--options={json.dumps({'pool': options})}",
        "--exit_with_stdin",
    )
    with running(words, environment, stdin=subprocess.PIPE) as worker:
        worker_in_training(tmp_path / "sweep", worker)
        worker.stdin.close()
        assert worker.wait(SECONDS) == 130


def test_a_task_returns_the_exit_code_of_its_worker_or_fails(tmp_path):
    def run(script):
        words = [sys.executable, "-c", script]
        return ray._run_worker(words, str(tmp_path), {"HUE": "blue"}, str(log))

    log = tmp_path / "task.log"
    assert run("import os; print('first'); print(os.environ['HUE'])") == 0
    assert log.read_text() == "first\nblue\n"
    assert run("import sys; sys.exit('error: too blue')") == 1  # a retry would not help
    with pytest.raises(RuntimeError, match="exit code 3 on "):
        run("raise SystemExit(3)")


TASK = """
import subprocess, sys
command = [sys.executable, "-c", "import os; print(os.getpid(), flush=True); os.read(0, 1)"]
if sys.argv[2:]:  # the node, which starts the task
    task = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
    print(task.pid, flush=True)
    task.wait()
else:
    from launch import ray
    ray._run_worker(command, "/", {}, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["task", "node"])
def test_a_command_ends_with_its_task_and_its_node(victim, environment, tmp_path):
    log = tmp_path / "log"
    with running([sys.executable, "-c", TASK, str(log), TASK], environment) as node:
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


def test_a_node_fits_as_many_workers_as_its_scarcest_resource_allows():
    assert ray._num_fitting({"CPU": 4.0, "GPU": 1.0}, 1, 0) == 4
    assert ray._num_fitting({"CPU": 8.0, "GPU": 1.0}, 1, 0.25) == 4
    assert ray._num_fitting({"CPU": 8.0}, 1, 1) == ray._num_fitting({}, 2, 0) == 0
    assert ray._num_fitting({"CPU": 0.3}, 0.1, 0) == 3
    assert ray._in_words(0.5, 2) == "0.5 CPUs and 2 GPUs" and ray._in_words(1, 0) == "1 CPU"

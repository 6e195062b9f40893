"""One worker over two processes that jax.distributed joins, on this host."""

import contextlib
import inspect
import signal
import socket
import subprocess
import sys
import time

import pytest

from launch import multihost
from noisegen import training
from tests.launch.harness import ROOT, SECONDS, metrics, num_lines, tables

SHORT = (
    "--config=experiments/digits.py",
    "--config.grid.batch_size=(64, 256)",
    "--config.grid.learning_rate=(0.0078125,)",
    "--config.grid.seed=(0, 1)",
    "--config.best=2",
    "--config.run.eval_every=2.0",
    *("--pool.microbatch=32", "--pool.eval_batch=360", "--pool.lanes_per_rare_step=1"),
)
LANES = ("--pool.lanes=2", "--pool.lane_devices=2", "--pool.batch_devices=1")
BATCH = ("--pool.lanes=1", "--pool.lane_devices=1", "--pool.batch_devices=2")

TRANSFORMER = """
import ml_collections
import numpy as np
import optax

from noisegen import data, models, sweeps, tasks


def get_config():
    return ml_collections.ConfigDict({"seed": 0})


def get_sweep(config):
    tokens = np.random.default_rng(0).integers(0, 16, 400)
    task = tasks.windowed_language_modeling(
        data.text_from_tokens(tokens[:300], tokens[300:], 16, name="random"),
        lambda rngs: models.Transformer(16, 16, 1, 2, mlp_width=24, rngs=rngs),
        lambda hparams, key: optax.adam(hparams["learning_rate"]),
        name="transformer",
        window=6,
    )
    runs = sweeps.grid(batch_size=[8], learning_rate=[0.01, 0.02], seed=[config.seed])
    protocol = sweeps.Protocol(metric="test_loss", mode="min", max_extensions=0)
    return sweeps.Sweep(task, runs * sweeps.fixed(num_updates=5), protocol)
"""


@pytest.fixture
def pair(environment):
    """pair(*flags) begins a worker of two processes; both are ended with the test."""
    processes = []

    def begin(*flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "{}:{}".format(*free.getsockname())
        for index in range(2):
            words = ("-m", "launch.sweep", *flags, f"--distributed={address},{index}/2")
            processes.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    cwd=ROOT,
                    env=environment | {"JAX_NUM_CPU_DEVICES": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return processes[-2:]

    yield begin
    for process in processes:
        with contextlib.suppress(OSError):
            process.kill()
        process.communicate()


def finish(pair):
    said = [process.communicate(timeout=SECONDS) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("spread", [LANES, BATCH])
def test_two_processes_train_what_one_with_as_many_devices_does(pair, call, tmp_path, spread):
    flags = (*SHORT, *spread, "--config.run.num_epochs=2.0")
    both = pair(*flags, f"--workdir={tmp_path / 'two'}")
    call("sweep", *flags, f"--workdir={tmp_path / 'one'}")
    (stdout, _), (silence, _) = finish(both)
    assert "Report: " in stdout and "Report: " not in silence
    assert metrics(tmp_path / "two") == metrics(tmp_path / "one") != {}
    assert tables(tmp_path / "two") == tables(tmp_path / "one")
    assert num_lines(tmp_path / "two") == 4


@pytest.mark.slow
def test_two_processes_share_a_model(pair, call, tmp_path):
    experiment = tmp_path / "transformer.py"
    experiment.write_text(TRANSFORMER)
    names = ("lanes", "lane_devices", "lanes_per_rare_step")
    flags = (f"--config={experiment}", *(f"--pool.{name}=1" for name in names))
    flags += ("--pool.model_devices=2", "--pool.microbatch=8", "--pool.eval_batch=8")
    finish(pair(*flags, f"--workdir={tmp_path / 'two'}"))
    call("sweep", *flags, f"--workdir={tmp_path / 'one'}")
    assert metrics(tmp_path / "two") == metrics(tmp_path / "one") != {}


@pytest.mark.slow
@pytest.mark.parametrize("spread", [LANES, BATCH])
def test_two_processes_feed_their_devices_from_the_host(pair, call, tmp_path, spread):
    flags = (*SHORT, *spread, "--config.run.num_epochs=2.0")
    both = pair(*flags, "--pool.data=host", f"--workdir={tmp_path / 'two'}")
    call("sweep", *flags, "--pool.data=device", f"--workdir={tmp_path / 'one'}")
    finish(both)
    assert metrics(tmp_path / "two") == metrics(tmp_path / "one") != {}


@pytest.mark.slow
def test_a_killed_pair_goes_on_from_its_checkpoint_and_ends_the_same(pair, call, tmp_path):
    flags = (*SHORT, *LANES, "--config.run.num_epochs=120.0", "--checkpoint_minutes=0.003")
    both = pair(*flags, f"--workdir={tmp_path / 'two'}")
    deadline = time.monotonic() + SECONDS
    while not any(int(p.name) > 2 for p in tmp_path.glob("two/checkpoints/*/[0-9]")):
        assert both[0].poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    both[0].send_signal(signal.SIGKILL)  # the other cannot go on alone
    assert both[1].wait(timeout=SECONDS) != 0
    (_, stderr), _ = finish(pair(*flags, f"--workdir={tmp_path / 'two'}"))
    assert "runs resume from a checkpoint" in stderr
    call("sweep", *flags, f"--workdir={tmp_path / 'one'}")
    assert metrics(tmp_path / "two") == metrics(tmp_path / "one") != {}


@pytest.mark.slow
def test_settings_are_measured_by_both_together(pair, tmp_path):
    flags = [flag for flag in SHORT if "microbatch" not in flag]
    finish(pair(*flags, "--config.run.num_epochs=1.0", f"--workdir={tmp_path / 'two'}"))
    assert num_lines(tmp_path / "two") == 4


def test_the_pool_of_the_first_process_is_called_as_any_pool():
    of_leader = inspect.signature(multihost._LeaderPool.train).parameters
    assert list(of_leader) == list(inspect.signature(training.Pool.train).parameters)


@pytest.mark.slow
def test_a_mesh_that_leaves_a_process_without_work_is_refused(pair, tmp_path):
    flags = (*SHORT, "--pool.lanes=1", "--pool.lane_devices=1", "--pool.batch_devices=1")
    first, other = pair(*flags, "--config.run.num_epochs=1.0", f"--workdir={tmp_path / 'two'}")
    _, stderr = first.communicate(timeout=SECONDS)
    assert first.returncode == 1
    assert "must be all of the 2 devices" in stderr
    other.communicate(timeout=SECONDS)


@pytest.mark.slow
def test_an_error_of_one_process_ends_both_at_once(environment, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
    program = f"""
from launch import multihost
from noisegen import training
from noisegen.training import multihost as broadcasts
multihost.join("{address},%d/2")
broadcasts.broadcast_json(None)
if %d == 0:
    raise RuntimeError("something unforeseen")
broadcasts.broadcast_json(None)
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program % (index, index)],
            cwd=ROOT,
            env=environment | {"JAX_NUM_CPU_DEVICES": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]  # JAX alone takes 300 seconds
    assert both[0].returncode == 1 and "RuntimeError: something unforeseen" in said[0]
    assert both[1].returncode != 0


@pytest.mark.parametrize(
    "where",
    ["127.0.0.1", "127.0.0.1:1,2/2", "127.0.0.1:1,a/2", "here,0/1"]
    + [f"{address},0/2" for address in (":1234", "here:", "here:abc", "here:0", "here:99999")],
)
def test_what_is_no_place_is_refused(where):
    with pytest.raises(ValueError, match="must be auto or HOST:PORT,INDEX/COUNT"):
        multihost.join(where)


def test_where_nobody_can_listen_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        for address in (f"127.0.0.1:{taken}", "no.such.host.invalid:1234"):
            with pytest.raises(ValueError, match="cannot listen there"):
                multihost.join(f"{address},0/2")

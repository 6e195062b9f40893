"""The parts that are about accelerators: in miniature on the processor, and their tables."""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from experiments.benchmarks import (
    __main__,
    contender,
    device_agreement,
    machine,
    many_lanes,
    report,
    wide_resnet,
    wide_resnet_profile,
)
from experiments.benchmarks.contenders import noisegen_wide_resnet
from noisegen import training
from noisegen.training import run_fields, task_plans

ROOT = pathlib.Path(__file__).parents[2]
QUICK = machine.Options(quick=True, rounds=1)


def result(status="finished", accuracy=0.5, loss=1.0, num_updates=8):
    """What a run left."""
    curve = {"test_accuracy": [0.1, accuracy], "test_loss": [2.0, loss], "train_loss": [2.0, loss]}
    return training.Result(
        run_id="made up",
        hparams={"batch_size": 16},
        status=status,
        diverged_at=None,
        metrics={name: values[-1] for name, values in curve.items()},
        curve=curve,
        num_updates=num_updates,
        num_examples=128,
        seconds=1.0,
    )


def speeds(first, second, **setting):
    """What a contender says of one setting, after two rounds."""
    losses = {"1024": 2.0, "4096": 2.1}
    return {"speeds": {"1024": first, "4096": second}, "losses": losses, "first_seconds": 9} | {
        "dtype": "bfloat16",
        "microbatch": 1024,
        **setting,
    }


def record():
    """Two settings of noisegen, one of PyTorch."""
    slow = speeds([80e3, 90e3], [190e3, 210e3], convolution="lax")
    fast = speeds([120e3, 130e3], [150e3, 160e3], convolution="auto", microbatch=512)
    broken = {"dtype": "float32", "microbatch": 2048, "convolution": "lax", "failed": "no room"}
    ours = [slow, fast, broken | {"speeds": {}, "losses": {}}]
    answers = {
        "noisegen": {"runs": ours, "num_parameters": 7},
        "PyTorch": {"runs": [speeds([60e3, 65e3], [200e3, 200e3])], "num_parameters": 7},
    }
    return {"source": "noise", "batch_sizes": [1024, 4096], "answers": answers}


def test_command_leaves_them_out_on_a_processor(monkeypatch):
    assert __main__.default_parts() == list(__main__.ANYWHERE)
    with monkeypatch.context() as one_device:
        one_device.setattr(__main__.jax, "devices", lambda: ["a core"])
        assert set(__main__.ANYWHERE) - set(__main__.default_parts()) == {"devices"}
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    parts = __main__.default_parts()
    assert parts[0] == "device_agreement" and set(parts) == {
        *__main__.ON_ACCELERATORS,
        *__main__.ANYWHERE,
    }


@pytest.mark.slow
def test_the_script_for_a_gpu_measures_all_from_a_fresh_directory(tmp_path):
    code = tmp_path / "code"
    for folder in ("noisegen", "launch", "experiments"):
        skipped = shutil.ignore_patterns("results", "__pycache__")
        shutil.copytree(ROOT / folder, code / folder, ignore=skipped)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PATH": f"{pathlib.Path(sys.executable).parent}:{env['PATH']}", "QUICK": "1"}
    env |= {"NOISEGEN_CACHE_DIR": str(tmp_path / "cache")}
    command = [code / "experiments/benchmarks/on_gpu.sh", "../out"]
    done = subprocess.run(command, cwd=tmp_path / "code", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    benchmarks = tmp_path / "out" / "benchmarks"
    assert {path.name for path in benchmarks.glob("*.json")} == {
        "device_agreement.json",
        "wide_resnet.json",
        "many_lanes.json",
    }
    many = json.loads((benchmarks / "many_lanes.json").read_text())
    assert many["settings"]["lanes"]["lanes"] == 4 and many["settings"]["one"]["lanes"] == 1
    assert many["images_per_second"][0].keys() == {"lanes", "one"}
    table = (benchmarks / "README.md").read_text()
    assert "CNN, float32, largest difference in loss, processor and processor" in table
    assert "images/s, 4 lanes / 1" in table
    assert (tmp_path / "out" / "table1" / "table.csv").exists()


def test_the_script_for_a_gpu_needs_a_directory_and_a_gpu(tmp_path):
    script = ROOT / "experiments/benchmarks/on_gpu.sh"
    env = os.environ | {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("QUICK", None)
    done = subprocess.run([script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode and "OUT [MINUTES]" in done.stderr
    command = [script, "out", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode and "gpu" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_wide_resnet_in_miniature():
    measured = wide_resnet.measure(QUICK)
    (run,) = measured["answers"]["noisegen"]["runs"]
    assert run["speeds"].keys() == run["losses"].keys() == {"32", "64"}
    assert all(1 < loss < 4 for loss in run["losses"].values()) and run["first_seconds"] > 0
    assert measured["answers"]["noisegen"]["num_parameters"] > 70_000
    rows = wide_resnet.rows(measured)
    assert ("noisegen / PyTorch, batch size 64", "skipped: no --torch_python", ">= 1.2") in rows
    assert "| noisegen | microbatch 32, lax | bfloat16 |" in wide_resnet.details(measured)


@pytest.mark.slow
def test_profile_in_miniature():
    measured = wide_resnet_profile.measure(QUICK)
    assert measured["num_examples"] == 16 * measured["batch_size"] == 512
    seconds = [kernel["seconds"] for kernel in measured["kernels"]]
    assert seconds == sorted(seconds, reverse=True)
    assert any("conv" in kernel["name"] for kernel in measured["kernels"][:5])
    assert "conv" in wide_resnet_profile.details(measured)


def test_profile_counts_the_time_in_kernels():
    kernels = [
        {"name": "conv", "seconds": 1.5, "calls": 3, "source": "block"},
        {"name": "add", "seconds": 0.5, "calls": 1, "source": ""},
    ]
    made = {"batch_size": 32, "num_examples": 512, "seconds": 4.0, "settings": {"microbatch": 32}}
    made["kernels"] = kernels
    assert ("% of them in kernels", "50", "near 100") in wide_resnet_profile.rows(made)
    assert "| 75.0 | 3 | `conv` | `block` |" in wide_resnet_profile.details(made)


def test_best_setting_counts_at_every_batch_size():
    rows = {what: (value, goal) for what, value, goal in wide_resnet.rows(record())}
    goal = ">= 100,000, better 150,000"
    ours = "noisegen, bfloat16, batch size {}, images/s (microbatch {})"
    assert rows[ours.format(1024, "512, auto")] == ("125,000 (120,000 to 130,000)", goal)
    assert rows[ours.format(4096, "1024, lax")] == ("200,000 (190,000 to 210,000)", goal)
    assert rows["noisegen / PyTorch, batch size 1024"] == ("2 (2 to 2)", ">= 1.2")
    assert rows["noisegen / PyTorch, batch size 4096"] == ("1 (0.95 to 1.05)", ">= 1.2")


def test_all_that_was_tried_stands_in_the_table():
    lines = wide_resnet.details(record()).splitlines()
    assert len([line for line in lines if line.startswith("| noisegen |")]) == 3
    assert any("float32" in line and "no room" in line for line in lines)


def test_missing_ratio_says_why():
    made = record()
    made["answers"]["PyTorch"] = {"runs": [], "failed": "exit code 1"}
    assert ("noisegen / PyTorch, batch size 1024", "failed: exit code 1", ">= 1.2") in (
        wide_resnet.rows(made)
    )


def test_failure_of_pytorch_costs_no_numbers_of_noisegen(monkeypatch):
    def train(python, program, processes, spec, *, accelerator):
        assert accelerator and processes == 1
        if program == "pytorch_wide_resnet":
            raise ChildProcessError("exit code 1")
        return record()["answers"]["noisegen"]

    monkeypatch.setattr(contender, "train", train)
    measured = wide_resnet.measure(QUICK._replace(torch_python="python"))
    assert len(measured["answers"]["noisegen"]["runs"]) == 3
    assert measured["answers"]["PyTorch"]["failed"] == "exit code 1"


def test_networks_of_unequal_size_are_refused():
    answers = copy.deepcopy(record()["answers"])
    wide_resnet._check(answers)
    answers["PyTorch"]["num_parameters"] += 1
    with pytest.raises(RuntimeError, match="numbers of parameters"):
        wide_resnet._check(answers)


def test_wide_resnet_is_the_one_of_the_paper_without_evaluations():
    spec = wide_resnet.make_spec(machine.Options())
    dataset = wide_resnet.images.noise(50_000, 10_000, 32, 3)
    assert noisegen_wide_resnet.num_parameters(spec, dataset) == 2_748_890
    task = noisegen_wide_resnet.make_task(spec, dataset, "bfloat16", "lax")
    assert task.ghost_size == 64 and task.num_examples == 50_000
    assert training.metric_spec(task).names == ("train_loss",)
    runs = [noisegen_wide_resnet.make_run(spec, size, 1) for size in spec["batch_sizes"]]
    task_plans.plan_runs(task, [run_fields.canonical_fields(run) for run in runs])
    assert all(spec["num_examples"] % size == 0 for size in spec["batch_sizes"])


def test_device_agreement_refuses_what_differs():
    def refused(**changes):
        with pytest.raises(RuntimeError, match="do not agree"):
            device_agreement.differences("CNN, float32", [result()], [result(**changes)])

    near = device_agreement.differences(
        "CNN, float32", [result()], [result(loss=1.0005, accuracy=0.505)]
    )
    assert near == pytest.approx({"accuracy": 0.005, "loss": 0.0005})
    refused(loss=1.002)
    refused(loss=float("nan"))
    refused(accuracy=0.52)
    refused(status="diverged")
    refused(num_updates=7)
    device_agreement.differences("WRN, bfloat16", [result()], [result(loss=1.002)])


def test_device_agreement_has_a_run_that_diverges_and_whole_ghost_batches():
    task, runs, _ = device_agreement._cnn()
    assert runs[-1]["learning_rate"] > 1e20 and len({run["batch_size"] for run in runs}) == 4
    wide, wide_runs, _ = device_agreement._wide_resnet("bfloat16")
    task_plans.plan_runs(wide, [run_fields.canonical_fields(run) for run in wide_runs])
    (diverged,) = training.Pool(task, training.PoolConfig(microbatch=64)).train(runs[-1:])
    assert diverged.status == "diverged"


@pytest.mark.slow
def test_wide_resnets_are_tasks_that_a_pool_accepts():
    spec = wide_resnet.make_spec(machine.Options())
    dataset = wide_resnet.images.noise(50_000, 10_000, 32, 3)
    task = noisegen_wide_resnet.make_task(spec, dataset, "bfloat16", "lax")
    runs = [noisegen_wide_resnet.make_run(spec, size, 1) for size in spec["batch_sizes"]]
    training.make_runs(task, runs)
    training.make_runs(*device_agreement._wide_resnet("bfloat16")[:2])


def test_lanes_over_one_lane():
    made = {
        "runs": {"lanes": 256, "one": 8},
        "settings": {
            "lanes": {"lanes": 256, "microbatch": 64},
            "one": {"lanes": 1, "microbatch": 256},
        },
        "images_per_second": [{"lanes": 8e6, "one": 2e5}, {"lanes": 6e6, "one": 2e5}],
    }
    assert ("images/s, 256 lanes / 1", "35 (30 to 40)", ">= 30") in many_lanes.rows(made)


def test_accelerator_is_named_with_its_record(monkeypatch):
    assert "accelerator" not in machine.describe("", QUICK)["hardware"]
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    described = machine.describe("", QUICK)
    assert described["hardware"]["accelerator"] == "8 x cpu"
    assert " 8 x cpu, " in report.markdown({"part": Part}, {"part": described})


def test_vectors_and_peak_of_the_processor_are_named_with_its_record():
    described = machine.describe("", QUICK)
    assert described["hardware"]["peak_gflops"] > 0
    described["hardware"] |= {"vector_bits": 256, "peak_gflops": 1234}
    written = report.markdown({"part": Part}, {"part": described})
    assert "vectors of 256 bits, 1,234 GFLOP/s in a matrix product, " in written


class Part:
    """A part without rows."""

    TITLE = "part"

    @staticmethod
    def rows(record):
        return []

"""The benchmarks' command in miniature, and what is made of its records."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.benchmarks import (
    __main__,
    few_runs,
    image_reading,
    images,
    machine,
    many_records,
    mnist,
    report,
    streaming,
)

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "experiments.benchmarks"]
PARTS = ("many_records", "first_record", "host_overhead", "mnist")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Directory that the command in miniature has filled."""
    out = tmp_path_factory.mktemp("benchmarks")
    env = os.environ | {"NOISEGEN_CACHE_DIR": str(out / "cache")}
    command = [*COMMAND, "--quick", f"--out={out}", f"--parts={','.join(PARTS)}"]
    subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=500)
    return out


def answer(seconds, speeds=(100.0, 110.0), accuracies=(0.5, 0.7)):
    """A contender's answer for two runs."""
    runs = [
        {"batch_size": size, "learning_rate": 0.1, "test_accuracy": accuracy}
        for size, accuracy in zip((64, 128), accuracies, strict=True)
    ]
    images_per_second = dict(zip(("64", "128"), speeds, strict=True))
    return {"seconds": seconds, "runs": runs, "images_per_second": images_per_second}


@pytest.mark.slow
def test_command_measures_every_part(out):
    records = {name: json.loads((out / f"{name}.json").read_text()) for name in PARTS}
    assert all(record["hardware"]["cores"] >= 1 for record in records.values())
    assert records["mnist"]["rounds"][0].keys() == {"noisegen", "Flax NNX"}
    assert all(seconds[0] > 0 for seconds in records["first_record"]["seconds"].values())
    assert records["host_overhead"]["digits"][0]["host_seconds"] > 0
    table = (out / "README.md").read_text()
    assert all(part in table for part in ("## LeNet-5", "cold", "device waits", "1,008 runs"))


@pytest.mark.slow
def test_streaming_in_miniature():
    record = streaming.measure(machine.Options(quick=True, rounds=1))
    assert record["are_equal"]
    assert [name for name, _, _ in streaming.rows(record)][0].startswith("LeNet-5, time with data")


@pytest.mark.slow
def test_reading_images_in_miniature():
    record = image_reading.measure(machine.Options(quick=True, rounds=1))
    ways = {"threads", "noisegen", "training", *(["grain"] if record["grain"] else [])}
    [measured] = record["rounds"]
    assert measured.keys() == ways | {"peak_mib"}
    assert all(measured[way]["rate"] > 0 for way in ways)
    assert 0 <= measured["training"]["waiting"] < 1
    assert 50 < record["mean_file_kib"] < 200  # those of ImageNet have about 110
    assert len(image_reading.rows(record)) == len(ways) + 3


@pytest.mark.slow
def test_workers_and_devices_in_miniature(tmp_path):
    command = [*COMMAND, "--quick", f"--out={tmp_path}", "--parts=many_workers,devices"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500)
    workers, devices = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("many_workers", "devices")
    )
    for sweep in workers["sweeps"]:
        assert sum(each["runs"] for each in sweep["workers"]) == sweep["records"] >= 63
        assert all(0 < each["bookkeeping_seconds"] < each["seconds"] for each in sweep["workers"])
    assert len(devices["images_per_second"][0]) == 3


@pytest.mark.slow
def test_contenders_train_the_same_runs(out):
    (answers,) = json.loads((out / "mnist.json").read_text())["rounds"]
    for done in answers.values():
        updates = {run["batch_size"]: run["num_updates"] for run in done["runs"]}
        assert updates == {64: 8, 256: 2}
        assert all(0 <= run["test_accuracy"] <= 1 for run in done["runs"])


@pytest.mark.slow
def test_measured_part_is_not_measured_again(tmp_path, capsys):
    with flagsaver.flagsaver():
        flags.FLAGS(["benchmarks", "--quick", f"--out={tmp_path}", "--parts=many_records"])
        __main__.main(["benchmarks"])
        before = (tmp_path / "many_records.json").read_text()
        assert json.loads(before)["count"] == 1008
        capsys.readouterr()
        __main__.main(["benchmarks"])
    again = capsys.readouterr()
    assert "measured before" in again.err and (tmp_path / "many_records.json").read_text() == before
    assert "1,008 runs" in again.out and again.out == (tmp_path / "README.md").read_text()


def test_ratios_take_the_better_pytorch():
    one_round = {
        "PyTorch, 1 process": answer(40.0),
        "PyTorch, 1 process a core": answer(30.0),
        "noisegen": answer(10.0),
        "Flax NNX": answer(80.0),
    }
    rows = {what: value for what, value, _ in mnist.rows({"rounds": [one_round]})}
    assert rows["noisegen, runs per hour"] == "720"
    assert rows["runs per hour, noisegen / PyTorch"] == "3"
    assert rows["runs per hour, noisegen / Flax NNX"] == "8"
    assert rows["noisegen, images/s, fastest / slowest batch size"] == "1.1"


def test_few_runs_are_measured_with_each_width_of_vectors(monkeypatch):
    """PyTorch trains several runs in a process or in two, and the better of both counts.

    Noisegen trains them twice, and finds its compiled programs the second time.
    """
    asked = []
    caches = []

    def train(python, program, processes, spec, *, variables):
        asked.append((program, processes, len(spec["runs"]), variables.get("ATEN_CPU_CAPABILITY")))
        if program == "pytorch_loop":
            return {"seconds": 30.0 / processes, "runs": []}
        caches.append(variables["JAX_COMPILATION_CACHE_DIR"])
        return {"seconds": 5.0 if caches.count(caches[-1]) == 2 else 10.0, "runs": []}

    monkeypatch.setattr(few_runs.contender, "train", train)
    monkeypatch.setattr(few_runs.machine, "vector_bits", lambda: 512)
    monkeypatch.setattr(few_runs, "num_cores", lambda: 2)
    monkeypatch.setattr(few_runs.data, "load", lambda name: images.noise(8, 4, 28, 1))
    record = few_runs.measure(machine.Options(rounds=2, torch_python="torch/bin/python"))
    ours = 2 * [("noisegen_pool", 1)]
    one_round = [
        (program, processes, count, limit)
        for limit in (None, "avx2")
        for count in (1, 6, 32)
        for program, processes in (*ours, ("pytorch_loop", 1), ("pytorch_loop", 2))
        if processes <= count
    ]
    assert asked == 2 * one_round
    assert len(set(caches)) == len(caches) / 2
    rows = {what: value for what, value, _ in few_runs.rows(record)}
    assert rows["PyTorch / noisegen, 1 run, vectors of 256 bits"] == "3 (3 to 3)"
    assert rows["PyTorch / noisegen, 32 runs, vectors of 512 bits"] == "1.5 (1.5 to 1.5)"
    assert rows["PyTorch / noisegen, compiled before, 32 runs, vectors of 512 bits"] == "3 (3 to 3)"
    monkeypatch.setattr(few_runs.machine, "vector_bits", lambda: None)
    record = few_runs.measure(machine.Options(quick=True, rounds=1))
    assert few_runs.rows(record) == [
        ("noisegen, 1 run, seconds", "10", ""),
        ("noisegen, compiled before, 1 run, seconds", "5", ""),
    ]


def test_without_pytorch_says_so():
    rows = mnist.rows({"rounds": [{"noisegen": answer(10.0), "Flax NNX": answer(80.0)}]})
    assert ("runs per hour, noisegen / PyTorch", "skipped: no --torch_python", ">= 2.5") in rows


def test_accuracies_stand_side_by_side():
    rounds = [
        {"noisegen": answer(1.0, accuracies=accuracies) | {"laps": {"pool": 1.0}}}
        for accuracies in ((0.5, 0.7), (0.6, 0.8))
    ]
    lines = mnist.details({"rounds": rounds}).splitlines()
    assert "| 64 | 100 | 55.00 ± 5.00 |" in lines and "| 128 | 110 | 75.00 ± 5.00 |" in lines


def test_unequal_work_is_refused(monkeypatch):
    work = {"num_updates": 1, "num_examples": 1, "num_evaluations": 1}

    def train(python, program, processes, spec):
        done = answer(1.0)
        done["runs"] = [run | work for run in done["runs"]]
        done["runs"][0]["num_updates"] += program == "flax_loop"
        return done

    monkeypatch.setattr(mnist.contender, "train", train)
    with pytest.raises(RuntimeError, match="equal work"):
        mnist.measure(machine.Options(quick=True, rounds=1))


def test_many_records_counts_what_it_times():
    with pytest.raises(RuntimeError, match="Expected 2 results, got 1"):
        many_records._counted(2, [0])


def test_spread():
    assert report.spread([3.0, 1.0, 2000.0]) == "3 (1 to 2,000)"
    assert report.spread([0.01234]) == "0.0123"


def test_the_committed_tables_are_those_of_the_committed_records():
    results = ROOT / "experiments" / "results" / "benchmarks"
    assert __main__.tables(results) == (results / "README.md").read_text()

"""Profiles the training of WRN-16-4 kernel by kernel, to be read before tuning."""

import collections
import pathlib
import tempfile
import time

import jax

from experiments.benchmarks import machine, report, wide_resnet
from experiments.benchmarks.contenders import noisegen_wide_resnet
from noisegen import training

TITLE = "Kernels of WRN-16-4 in bf16"
_SHOWN = 30


def measure(options: machine.Options) -> dict:
    """Traces one run in a pool that has compiled."""
    spec = wide_resnet.make_spec(options)
    settings, dataset = wide_resnet.likeliest(options), wide_resnet.make_dataset(options)
    task = noisegen_wide_resnet.make_task(spec, dataset, settings["dtype"], settings["convolution"])
    pool = training.Pool(task, training.PoolConfig(microbatch=settings["microbatch"]))
    size = spec["batch_sizes"][0]
    first, run = (noisegen_wide_resnet.make_run(spec, size, updates) for updates in (1, 16))
    list(pool.train([first]))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            started = time.perf_counter()
            (result,) = pool.train([run])
            seconds = time.perf_counter() - started
        kernels = _kernels(folder)
    done = {"batch_size": size, "num_examples": result.num_examples, "seconds": seconds}
    return done | {"settings": settings, "kernels": kernels}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns how much of the time the device is busy; on a processor its threads add up."""
    busy = sum(kernel["seconds"] for kernel in record["kernels"])
    what = f"seconds of {record['num_examples']} images, batch size {record['batch_size']}, traced"
    return [
        (what, report.spread([record["seconds"]]), ""),
        ("% of them in kernels", report.spread([100 * busy / record["seconds"]]), "near 100"),
    ]


def details(record: dict) -> str:
    """Returns a table of the kernels that take longest."""
    kernels, settings = record["kernels"], record["settings"]
    busy = sum(kernel["seconds"] for kernel in kernels)
    lines = [
        (f"{100 * k['seconds'] / busy:.1f}", str(k["calls"]), f"`{k['name']}`", f"`{k['source']}`")
        for k in kernels[:_SHOWN]
    ]
    header = ("% of kernel time", "calls", "kernel", "source")
    values = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{values}.\n\n{report.table(header, lines)}"


def _kernels(folder):
    """Returns seconds and calls by kernel, the longest first."""
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    seconds, calls, sources = collections.Counter(), collections.Counter(), {}
    for event in _events(jax.profiler.ProfileData.from_file(str(path)).planes):
        seconds[event.name] += event.duration_ns / 1e9
        calls[event.name] += 1
        if event.name not in sources:
            stats = dict(event.stats)
            sources[event.name] = str(stats.get("tf_op") or stats.get("hlo_op") or "")
    return [
        {"name": name, "seconds": took, "calls": calls[name], "source": sources[name]}
        for name, took in seconds.most_common()
    ]


def _events(planes):
    """Returns the events of the accelerator's streams, or the program's on the processor."""
    streams, others = [], []
    for plane in planes:
        for line in plane.lines:
            is_stream = plane.name.startswith("/device:") and line.name.startswith("Stream")
            (streams if is_stream else others).append(line)
    if streams:
        return [event for line in streams for event in line.events]
    events = [event for line in others for event in line.events]
    return [event for event in events if "hlo_op" in dict(event.stats)]

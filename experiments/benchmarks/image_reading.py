"""Measures how fast JPEG files of ImageNet's size are read, decoded and trained on.

Made-up photographs of 500 x 375 pixels become squares of 256 pixels, of which 224 are cut out at
random on the device. Each round reads all of them by a plain pool of threads, by grain if it is
installed, by a source of noisegen, and by a pool that trains on the means of the colors. On a CPU
the decoders and the crops of training share the cores.
"""

import functools
import importlib.util
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent import futures

import numpy as np
import optax
from flax import nnx
from PIL import Image, ImageOps

from experiments.benchmarks import machine, report
from noisegen import data, tasks, training
from noisegen.sweeps.machine import num_cores

TITLE = "JPEG files at 224 pixels"
GOAL = 0.9  # of the images a second of the plain pool of threads, at least

PIXELS, CROP = 256, 224
_SIZE = (500, 375)  # width and height
_MICROBATCH = 32


class _Colors(nnx.Module):
    """Classifies the means of the colors."""

    def __init__(self, rngs):
        self.last = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, images):
        return self.last(images.mean((1, 2)))


def measure(options: machine.Options) -> dict:
    """Reads images in every way, `options.rounds` times in turn; compilation does not count."""
    num_images = 2 * _MICROBATCH if options.quick else 8 * _MICROBATCH
    with tempfile.TemporaryDirectory() as folder, futures.ThreadPoolExecutor(num_cores()) as pool:
        num_bytes = _write(pathlib.Path(folder), num_images)
        dataset = data.image_folder(folder, pixels=PIXELS, test_pixels=CROP, executor=pool)
        paths = sorted(map(str, pathlib.Path(folder).glob("train/*/*")))
        ways = {"threads": functools.partial(_read_by_threads, paths, pool)}
        if importlib.util.find_spec("grain"):
            ways["grain"] = functools.partial(_read_by_grain, paths)
        ways["noisegen"] = functools.partial(_read_by_noisegen, dataset)
        ways["training"] = _training(dataset)
        rounds = []
        for _ in range(options.rounds):
            rounds.append({name: way() for name, way in ways.items()})
            rounds[-1]["peak_mib"] = _peak_mib()
    return {
        "num_images": num_images,
        "mean_file_kib": num_bytes / num_images / 2**10,
        "decoded_mib": num_images * PIXELS**2 * 3 / 2**20,
        "microbatch": _MICROBATCH,
        "grain": importlib.util.find_spec("grain") is not None,
        "rounds": rounds,
    }


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns rates, the share of the time in which the device waits, and the growth of memory."""
    rounds = record["rounds"]
    rates = [
        (f"{name}, images a second", report.spread([each[name]["rate"] for each in rounds]), "")
        for name in ("threads", "grain", "noisegen", "training")
        if name in rounds[0]
    ]
    ratios = [each["noisegen"]["rate"] / each["threads"]["rate"] for each in rounds]
    waiting = [100 * each["training"]["waiting"] for each in rounds]
    growth = rounds[-1]["peak_mib"] - rounds[0]["peak_mib"]
    return [
        *rates,
        ("noisegen / threads", report.spread(ratios), f">= {GOAL}"),
        ("training, % of the time that the device waits", report.spread(waiting), ""),
        (
            f"growth of memory after the first round, MiB ({record['decoded_mib']:,.0f} decoded)",
            f"{growth:,.0f}",
            "0",
        ),
    ]


def _write(folder: pathlib.Path, num_images: int) -> int:
    """Writes images of two classes, and a few to test on; returns the bytes of the former."""
    random = np.random.default_rng(0)
    for split, count in (("train", num_images), ("test", 4)):
        for label in "ab":
            (folder / split / label).mkdir(parents=True)
        for i in range(count):
            # Smooth shapes with some grain: as many bytes as a photograph.
            small = random.integers(0, 256, (9, 12, 3), np.uint8)
            image = np.asarray(Image.fromarray(small).resize(_SIZE, Image.Resampling.BICUBIC))
            image = np.clip(image + random.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
            path = folder / split / "ab"[i % 2] / f"{i:05d}.JPEG"
            Image.fromarray(image).save(path, quality=90)
    return sum(path.stat().st_size for path in folder.glob("train/*/*"))


def _decode(path: str) -> np.ndarray:
    """Reads an image as one would without noisegen."""
    with Image.open(path) as image:
        size = (PIXELS, PIXELS)
        return np.asarray(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BILINEAR))


def _read_by_threads(paths: list[str], pool: futures.Executor) -> dict:
    """Reads every image once, in a plain pool of threads."""
    started = time.perf_counter()
    return _rate("threads", sum(1 for _ in pool.map(_decode, paths)), started)


def _read_by_grain(paths: list[str]) -> dict:
    """Reads every image once, in the threads of grain."""
    import grain

    options = grain.ReadOptions(num_threads=num_cores(), prefetch_buffer_size=2 * _MICROBATCH)
    started = time.perf_counter()
    images = grain.MapDataset.source(paths).map(_decode).to_iter_dataset(options)
    return _rate("grain", sum(len(batch) for batch in images.batch(_MICROBATCH)), started)


def _read_by_noisegen(dataset: data.Dataset) -> dict:
    """Reads every image once, as the feed of a pool does."""
    started = time.perf_counter()
    batches = np.arange(len(dataset.train)).reshape(-1, _MICROBATCH)
    count = sum(len(dataset.train[indices]["label"]) for indices in batches)
    return _rate("noisegen", count, started)


def _training(dataset: data.Dataset) -> Callable[[], dict]:
    """Returns a function that trains for an epoch."""
    task = tasks.image_classification(
        dataset,
        _Colors,
        lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        augment=lambda key, image: data.random_resized_crop(key, image, CROP),
        name="means of colors",
    )
    settings = {"lanes": 1, "microbatch": _MICROBATCH, "eval_batch": 4, "data": "host"}
    pool = training.Pool(task, training.PoolConfig(**settings))
    fields = {"batch_size": _MICROBATCH, "learning_rate": 0.01, "seed": 0}
    counts = 1, len(dataset.train) // _MICROBATCH
    short, run = training.make_runs(task, [fields | {"num_updates": count} for count in counts])
    list(pool.train([short]))  # compiles

    def train() -> dict:
        started = time.perf_counter()
        [result] = pool.train([run])
        found = _rate("training", result.num_examples, started)
        # Without reading, which on a CPU also slows the network down.
        step = pool.seconds_per_step(run)
        return found | {"waiting": max(0.0, 1 - step * found["rate"] / _MICROBATCH)}

    return train


def _rate(name: str, count: int, started: float) -> dict:
    """Returns the images read in a second, and says it."""
    rate = count / (time.perf_counter() - started)
    machine.say(f"  {name}: {rate:,.0f} images a second")
    return {"rate": rate}


def _peak_mib() -> float:
    """Returns the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

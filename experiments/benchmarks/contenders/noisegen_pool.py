"""Trains by the pool, with the settings that it chooses itself."""

import time

import jax
import numpy as np
import optax

from experiments.benchmarks.contenders import exchange
from launch import cli
from noisegen import data, models, tasks, training


def main() -> None:
    """Trains the runs of the spec; then those of each batch size by themselves, for their speed."""
    spec = exchange.read_spec()
    laps = Laps(spec["started"])
    laps.add("start and import")
    cli.prepare_devices()
    task = lenet5_task(load(spec["images"]), spec["momentum"])
    runs = make_runs(spec["runs"], spec["seed"])
    laps.add("data and task")
    settings = training.choose_config(task, runs)
    laps.add("settings")
    pool = training.Pool(task, settings)
    results = list(pool.train(runs))
    ended = time.time()
    laps.add("pool")
    exchange.answer(
        [answer(result) for result in results],
        ended,
        laps=laps.seconds,
        settings=vars(settings),
        images_per_second=images_per_second(pool, runs),
    )


def load(path: str, mean=(exchange.MEAN,), std=(exchange.STD,)) -> data.Dataset:
    """Loads the images that all contenders share."""
    with np.load(path) as arrays:
        train, test = (
            {field: arrays[f"{split}_{field}"] for field in ("image", "label")}
            for split in ("train", "test")
        )
    return data.Dataset("images", train, test, 10, tuple(mean), tuple(std), "", path)


def lenet5_task(dataset: data.Dataset, momentum: float) -> training.Task:
    """Returns the task of LeNet-5 trained with momentum."""
    return tasks.image_classification(
        dataset,
        lambda rngs: models.LeNet5(rngs=rngs),
        lambda hparams, key: optax.sgd(hparams["learning_rate"], momentum),
        name="LeNet-5",
    )


def make_runs(pairs: list[tuple[int, float]], seed: int) -> list[dict]:
    """Returns runs of one epoch, one for each batch size and learning rate."""
    fixed = {"num_epochs": 1.0, "seed": seed}
    return [{"batch_size": size, "learning_rate": rate, **fixed} for size, rate in pairs]


def answer(result: training.Result) -> dict:
    """Converts a result to the answer that all contenders give."""
    size, rate = result.hparams["batch_size"], result.hparams["learning_rate"]
    evaluations = len(result.curve["update"])
    return exchange.run(
        size, rate, result.num_updates, result.metrics["test_accuracy"], evaluations
    )


def images_per_second(pool: training.Pool, runs: list[dict]) -> dict[int, float]:
    """Measures images a second by batch size, evaluations included, one batch size at a time."""
    speeds = {}
    for size in dict.fromkeys(run["batch_size"] for run in runs):
        started = time.perf_counter()
        results = list(pool.train([run for run in runs if run["batch_size"] == size]))
        seconds = time.perf_counter() - started
        speeds[size] = sum(result.num_examples for result in results) / seconds
    return speeds


class Laps:
    """Seconds by what they went to, those in XLA's compiler apart."""

    def __init__(self, started: float):
        self.seconds, self._last, self._compiler, self._compiled = {}, started, 0.0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def add(self, name: str) -> None:
        """Assigns the time since the last call to `name`."""
        now = time.time()
        if self._compiler:
            self.seconds[f"{name}: compiler"] = round(self._compiler, 3)
        self.seconds[name] = round(now - self._last - self._compiler, 3)
        self._last, self._compiler = now, 0.0

    def _listen(self, event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            ended = time.time()  # of two compilations side by side, the overlap counts once
            self._compiler += ended - max(self._compiled, ended - seconds)
            self._compiled = ended


if __name__ == "__main__":
    main()

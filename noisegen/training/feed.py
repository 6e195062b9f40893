"""Reads the microbatches of runs on the host, in the order in which the lanes take them.

The order follows from the run, so the host knows it without asking the device: the examples of a
run are one stream of permutations, and its plan cuts the stream into batches. A thread reads the
next window while the device works on the one before.
"""

import functools
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import jax
import numpy as np

from noisegen._math import ceil_div
from noisegen.training.config import PoolConfig
from noisegen.training.data_order import permutation_of_seed
from noisegen.training.plan import Plan
from noisegen.training.program import Program
from noisegen.training.run import Run
from noisegen.training.task import PyTree, Task

# The run of a lane and the examples that it has consumed; None if the lane is idle.
Position = tuple[Run, int] | None


class HostOrders:
    """Computes the orders of a task's examples on the host; equal to those of the device.

    Args:
      task: The task.
      size: Orders that are kept, since runs of one seed share them.
    """

    def __init__(self, task: Task, size: int):
        self._task = task
        self._draw = jax.jit(functools.partial(permutation_of_seed, task))
        self._cached = functools.lru_cache(size)(self._compute)

    def __call__(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the order of the examples in an epoch of a run, int32 (N,)."""
        return self._cached(int(seed), int(epoch))

    def examples(self, seed: int, epochs: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Returns the examples at some offsets into epochs, arrays of one shape."""
        if not self._task.shuffle:
            return offsets  # There may be too many examples to list them.
        examples = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            examples[chosen] = self(seed, epoch)[offsets[chosen]]
        return examples

    def _compute(self, seed: int, epoch: int) -> np.ndarray:
        try:
            [device, *_] = jax.local_devices(backend="cpu")
        except RuntimeError:  # JAX may be told to use an accelerator only.
            [device, *_] = jax.local_devices()
        arguments = jax.device_put((np.int32(seed), np.int32(epoch)), device)
        return jax.device_get(self._draw(*arguments))


class _Window(NamedTuple):
    """The examples of all lanes in some micro-steps."""

    data: PyTree  # (K, L, M, ...)
    consumed: np.ndarray  # int64 (n + 1, L), examples consumed before each step and after the last

    @property
    def num_steps(self) -> int:
        """Micro-steps in the window, n of the K that there is room for."""
        return len(self.consumed) - 1


class Feed:
    """Feeds the lanes of one program, reading ahead.

    Args:
      program: The program, whose training set is on the host.
      orders: Computes the orders of the examples.
      config: Performance settings of the program.
    """

    def __init__(self, program: Program, orders: HostOrders, config: PoolConfig):
        self._program = program
        self._orders = orders
        self._shape = (program.window_steps, config.lanes, config.microbatch)
        self._executor = futures.ThreadPoolExecutor(1)
        self._runs: list[Run | None] = []
        self._next: futures.Future[_Window | None] | None = None  # being read
        self._windows: Iterator[_Window] = iter(())
        self._window: _Window | None = None  # with its data on the device
        self._step = 0  # micro-steps of the window that were taken

    def seek(self, positions: Sequence[Position]) -> None:
        """Goes to where the lanes are: nothing is done if the feed is there already."""
        runs = [position and position[0] for position in positions]
        if self._window is not None and runs == self._runs and self._is_at(positions):
            return
        self._runs = runs
        self._window = None
        consumed = [position[1] if position else 0 for position in positions]
        self._windows = self._read_windows(runs, np.array(consumed, np.int64))
        self._read_ahead()

    def take(self, most: int) -> tuple[PyTree, int, int] | None:
        """Returns the examples of the next micro-steps, and waits for them if need be.

        Args:
          most: Micro-steps to take at most.

        Returns:
          A window on the device, the first of its micro-steps to make, and their number, 1 to
          `most`. None if a run has ended.

        Raises:
          SourceError: If the examples cannot be read.
        """
        if self._window is None or self._step == self._window.num_steps:
            window = self._next.result()
            if window is None:
                return None
            self._read_ahead()
            self._window = window._replace(data=self._program.put_window(window.data))
            self._step = 0
        first = self._step
        self._step = min(first + most, self._window.num_steps)
        return self._window.data, first, self._step - first

    def check(self, positions: Sequence[Position]) -> None:
        """Checks that the lanes have consumed what they were fed.

        Raises:
          RuntimeError: If they have not. Then the device computes other batch sizes than the plan.
        """
        if not self._is_at(positions):
            raise RuntimeError(
                "The device took batches of other sizes than the host planned. Let the task's "
                "batch_size compute in whole numbers, so that both round alike, or hold the data "
                "on the device (data='device')."
            )

    def _is_at(self, positions: Sequence[Position]) -> bool:
        """Returns whether the lanes have consumed what was taken."""
        consumed = self._window.consumed[self._step]
        return all(
            position is None or position[1] == count
            for position, count in zip(positions, consumed, strict=True)
        )

    def _read_ahead(self) -> None:
        """Begins to read the next window, in the thread."""
        self._next = self._executor.submit(next, self._windows, None)

    def _read_windows(self, runs: Sequence[Run | None], consumed: np.ndarray) -> Iterator[_Window]:
        """Yields windows until a run ends, from the examples that each has consumed, (L,)."""
        num_steps, num_lanes, microbatch = self._shape
        while True:
            steps = num_steps
            starts, sizes = {}, {}
            for lane, run in enumerate(runs):
                if run is not None:
                    plan, before = run.plan, consumed[lane]
                    starts[lane], sizes[lane] = microbatches(plan, microbatch, before, num_steps)
                    steps = min(steps, len(starts[lane]))
            if steps == 0:
                return
            # Idle lanes, and micro-steps after the end of a run, repeat an example that is needed.
            indices = np.full(self._shape, -1)
            after = np.zeros((steps, num_lanes), np.int64)
            for lane, start in starts.items():
                size = sizes[lane][:steps]
                indices[:steps, lane] = self._examples(runs[lane], start[:steps], size)
                after[:, lane] = start[:steps] + size
            indices[indices < 0] = indices.max()
            data = self._program.data["train"][indices]
            yield _Window(data, np.concatenate([consumed[None], after]))
            consumed = after[-1]

    def _examples(self, run: Run, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Returns the examples of some microbatches of a run, int (n, M)."""
        within = np.arange(self._shape[2])
        # As in `take`, positions outside the mask repeat the first example.
        positions = starts[:, None] + np.where(within < sizes[:, None], within, 0)
        epochs, offsets = np.divmod(positions, run.plan.permutation_length)
        return self._orders.examples(run.hparams["seed"], epochs, offsets)


def microbatches(
    plan: Plan, microbatch: int, consumed: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the next microbatches of a run.

    Args:
      plan: Plan of the run.
      microbatch: Examples of a whole microbatch.
      consumed: Examples that the run has consumed.
      most: Microbatches to return at most. There are fewer at the end of the run.

    Returns:
      For each microbatch, the examples consumed before it and its own, int64 (n,).
    """
    update = np.searchsorted(plan.examples_seen, consumed, side="right")
    ends = plan.examples_seen[update : update + most]
    starts = np.concatenate([[consumed], ends])[: len(ends)]
    # A microbatch ends with its batch.
    counts = ceil_div(ends - starts, microbatch)
    earlier = np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(starts, counts) + (np.arange(len(earlier)) - earlier) * microbatch
    size = np.minimum(np.repeat(ends, counts) - first, microbatch)
    return first[:most], size[:most]

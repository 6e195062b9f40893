"""Exact values of SGD on the noisy quadratic model.

The loss of parameters theta is L = 1/2 sum_i h_i theta_i^2. The gradient of an example has the mean
h_i theta_i and, independently of theta, the variance c_i in coordinate i. SGD of constant learning
rate r, whose batches of B examples are independent, has after t updates (Zhang et al. 2019,
section 3)

    E theta_i(t)^2 = q_i^t theta_i(0)^2 + (1 - q_i^t) / (1 - q_i) r^2 c_i / B,  q_i = (1 - r h_i)^2.

With batches drawn without replacement from N examples, 1 / B becomes 1 / B - 1 / N.

>>> import numpy as np
>>> model = Quadratic(curvature=np.array([1.0, 0.5]), variance=np.array([1.0, 0.5]))
>>> float(model.loss(0)), round(float(model.loss(20, learning_rate=0.5, batch_size=8.0)), 3)
(0.75, 0.03)
>>> steps, rate = model.steps_to_target(0.05, batch_size=8.0)
>>> round(steps, 1), round(rate, 2)
(4.3, 0.59)
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize


@dataclasses.dataclass(frozen=True, eq=False)
class Quadratic:
    """A noisy quadratic model, whose parameters all start at 1.

    Attributes:
      curvature: Eigenvalues h of the Hessian, of shape (d,).
      variance: Variances c of an example's gradient along the eigenvectors, of shape (d,).
      num_examples: Size N of the training set; infinite for fresh examples.
    """

    curvature: np.ndarray
    variance: np.ndarray
    num_examples: float = math.inf

    def squares(self, steps, learning_rate: float, batch_size: float) -> np.ndarray:
        """Returns E theta_i^2 after some updates: steps of shape (T,) give (T, d)."""
        q = (1 - learning_rate * self.curvature) ** 2
        noise = self.variance * (1 / batch_size - 1 / self.num_examples)
        limit = learning_rate**2 * noise / (1 - q)
        power = q ** np.asarray(steps, float)[..., None]
        return power + (1 - power) * limit

    def loss(self, steps, learning_rate: float = 0.0, batch_size: float = 1.0):
        """Returns the expected loss after some updates, a number or an array like `steps`."""
        if learning_rate == 0:
            return np.full(np.shape(steps), self.curvature.sum() / 2)[()]
        return self.squares(steps, learning_rate, batch_size) @ self.curvature / 2

    def crossing(self, target: float, learning_rate: float, batch_size: float) -> float:
        """Returns the updates until the expected loss is at the target.

        Between two updates it is interpolated linearly. Infinite if the loss never falls so far, if
        the learning rate is unstable, or if it makes a coordinate noisier than it was at the start.
        (The loss may then rise again. Such a learning rate is never the fastest.)
        """
        if abs(1 - learning_rate * self.curvature).max() >= 1:
            return math.inf
        if self.squares(math.inf, learning_rate, batch_size).max() > 1:
            return math.inf
        if self.loss(math.inf, learning_rate, batch_size) >= target:
            return math.inf
        before, after = 0, 1
        while self.loss(after, learning_rate, batch_size) > target:
            before, after = after, 2 * after
        while after - before > 1:
            middle = (before + after) // 2
            if self.loss(middle, learning_rate, batch_size) > target:
                before = middle
            else:
                after = middle
        above, below = self.loss(np.array([before, after]), learning_rate, batch_size)
        return float(before + (above - target) / (above - below))

    def steps_to_target(
        self, target: float, batch_size: float, learning_rates: Sequence[float] | None = None
    ) -> tuple[float, float]:
        """Returns the fewest updates to a target, and the learning rate that needs them.

        Args:
          target: Value of the loss.
          batch_size: Examples an update, any positive number.
          learning_rates: The learning rates that are tried, by default all.
        """
        if learning_rates is not None:
            return min((self.crossing(target, rate, batch_size), rate) for rate in learning_rates)
        largest = 2 / self.curvature.max()
        rates = largest * np.geomspace(1e-3, 0.999, 40)
        steps = [self.crossing(target, rate, batch_size) for rate in rates]
        best = int(np.argmin(steps))
        found = optimize.minimize_scalar(
            lambda log_rate: self.crossing(target, math.exp(log_rate), batch_size),
            bounds=np.log([rates[max(best - 1, 0)], rates[min(best + 1, len(rates) - 1)]]),
            method="bounded",
        )
        return min((float(found.fun), math.exp(found.x)), (steps[best], float(rates[best])))

    def fewest_updates(self, target: float) -> float:
        """Returns S_min, the updates to a target without noise."""
        return self.steps_to_target(target, self.num_examples)[0]

    def fewest_examples(self, target: float) -> float:
        """Returns E_min, the examples to a target in the limit of small batches.

        With learning rate r = s B and t = e / B updates, the loss tends to

            1/2 sum_i h_i exp(-2 h_i u) + s/4 sum_i c_i (1 - exp(-2 h_i u)),  u = s e.

        For each u this gives the s at which it is the target, and so e = u / s.
        """
        u = np.geomspace(1e-3, 1e4, 20_000) / self.curvature.max()
        decayed = np.exp(-2 * self.curvature * u[:, None])
        signal = decayed @ self.curvature / 2
        noise = (1 - decayed) @ self.variance / 4
        with np.errstate(divide="ignore"):
            examples = u * noise / np.maximum(target - signal, 0)
        return float(examples.min())

    def squared_norms(self, steps: float, learning_rate: float, batch_size: float) -> np.ndarray:
        """Returns the expected |G|^2 before each of the updates, of shape (T,)."""
        squares = self.squares(np.arange(math.ceil(steps)), learning_rate, batch_size)
        return squares @ self.curvature**2

    def noise_scale(
        self, steps: float, learning_rate: float, batch_size: float
    ) -> tuple[float, float]:
        """Returns the noise scale of a run: average over full updates, and ratio of means.

        The last update counts in part if `steps` is not a whole number.
        """
        trace = self.variance.sum()
        norms = self.squared_norms(steps, learning_rate, batch_size)
        counts = np.minimum(1, steps - np.arange(len(norms)))
        full_updates = counts * norms / (norms + trace / batch_size)  # of progress
        average = (full_updates * trace / norms).sum() / full_updates.sum()
        return float(average), float(trace / np.average(norms, weights=counts))


def harmonic(dimensions: int, num_examples: float = math.inf) -> Quadratic:
    """Returns the model of Zhang et al.: h_i = c_i = 1 / i."""
    spectrum = 1 / np.arange(1, dimensions + 1)
    return Quadratic(spectrum, spectrum, num_examples)

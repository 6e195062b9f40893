"""Statistics of training runs: intervals, differences, selection, fits.

Everything here works on arrays of scores; sweeps and records are unknown to it.
"""

from noisegen.statistics.fits import ParabolaOptimum, PowerLaw, parabola_optimum, power_law
from noisegen.statistics.intervals import (
    Difference,
    Interval,
    holm,
    mean_interval,
    pair_by_seed,
    paired_difference,
    welch_difference,
)
from noisegen.statistics.selection import (
    HeldOutScore,
    best_points,
    bootstrap_shares,
    resample_runs,
    selected_without_seed,
)

__all__ = [
    "Difference",
    "HeldOutScore",
    "Interval",
    "ParabolaOptimum",
    "PowerLaw",
    "best_points",
    "bootstrap_shares",
    "holm",
    "mean_interval",
    "pair_by_seed",
    "paired_difference",
    "parabola_optimum",
    "power_law",
    "resample_runs",
    "selected_without_seed",
    "welch_difference",
]

"""Statistics of training runs: intervals, differences, selection, comparisons, fits, planning.

Everything here works on arrays of scores; sweeps and records are unknown to it.
"""

from noisegen.statistics.comparisons import (
    LastNotLower,
    RowComparison,
    compare_with_best,
    last_not_lower,
)
from noisegen.statistics.fits import ParabolaOptimum, PowerLaw, parabola_optimum, power_law
from noisegen.statistics.intervals import (
    Difference,
    Estimate,
    Interval,
    PooledDeviation,
    estimate,
    estimated_difference,
    holm,
    mean_interval,
    pair_by_seed,
    paired_difference,
    pooled_deviation,
    t_quantile,
    welch_difference,
)
from noisegen.statistics.power import (
    least_difference,
    paired_proportion_error,
    proportion_error,
    seeds_needed,
)
from noisegen.statistics.selection import (
    HeldOutScore,
    best_points,
    bootstrap_shares,
    resample_runs,
    selected_by_first_seeds,
    selected_without_seed,
)

__all__ = [
    "Difference",
    "Estimate",
    "HeldOutScore",
    "Interval",
    "LastNotLower",
    "ParabolaOptimum",
    "PooledDeviation",
    "PowerLaw",
    "RowComparison",
    "best_points",
    "bootstrap_shares",
    "compare_with_best",
    "estimate",
    "estimated_difference",
    "holm",
    "last_not_lower",
    "least_difference",
    "mean_interval",
    "pair_by_seed",
    "paired_difference",
    "paired_proportion_error",
    "parabola_optimum",
    "pooled_deviation",
    "power_law",
    "proportion_error",
    "resample_runs",
    "seeds_needed",
    "selected_by_first_seeds",
    "selected_without_seed",
    "t_quantile",
    "welch_difference",
]

"""Sweeps: grids of runs, the protocols that read them, and the `Sweep` that trains them."""

from noisegen.sweeps.advice import Advice, SeriesAdvice, advise
from noisegen.sweeps.checks import check_metrics, check_points
from noisegen.sweeps.domains import Domain
from noisegen.sweeps.evidence import (
    Comparison,
    RowEvidence,
    compare_series,
    learning_rate_laws,
    row_evidence,
)
from noisegen.sweeps.extension import extend_grid
from noisegen.sweeps.grids import (
    Grid,
    chain,
    doublings,
    fixed,
    grid,
    powers_of_two,
    product,
    zipped,
)
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import FLAGS, Optimum, Point, Protocol, select
from noisegen.sweeps.regimes import (
    Boundary,
    boundaries,
    effective_learning_rate,
    fit_broken_line,
    largest_stable,
)
from noisegen.sweeps.sweep import Sweep
from noisegen.training.run_id import by_run_id, canonicalize, run_id

__all__ = [
    "FLAGS",
    "Advice",
    "Boundary",
    "Comparison",
    "Domain",
    "Grid",
    "Metric",
    "Optimum",
    "Point",
    "Protocol",
    "RowEvidence",
    "SeriesAdvice",
    "Sweep",
    "advise",
    "boundaries",
    "by_run_id",
    "canonicalize",
    "chain",
    "check_metrics",
    "check_points",
    "compare_series",
    "doublings",
    "effective_learning_rate",
    "extend_grid",
    "fit_broken_line",
    "fixed",
    "grid",
    "largest_stable",
    "learning_rate_laws",
    "powers_of_two",
    "product",
    "row_evidence",
    "run_id",
    "select",
    "zipped",
]

"""Sweeps: grids of runs, the protocols that read them, and the `Sweep` that trains them."""

from noisegen.sweeps.advice import Advice, SeriesAdvice, advise
from noisegen.sweeps.critical_batch import (
    CriticalBatch,
    NoiseScale,
    critical_batch_frame,
    critical_batch_sizes,
    fit_critical_batch,
    noise_scales,
)
from noisegen.sweeps.data_parallelism import Scaling, scaling_regions
from noisegen.sweeps.domains import Domain
from noisegen.sweeps.evidence import (
    Comparison,
    RowEvidence,
    compare_series,
    learning_rate_laws,
    row_evidence,
)
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
    effective_learning_rate_of,
    largest_stable,
)
from noisegen.sweeps.sweep import Sweep
from noisegen.sweeps.targets import (
    Crossing,
    RowTarget,
    TargetPoint,
    first_crossing,
    propose_targets,
    steps_to_target,
    targets_frame,
)
from noisegen.training.run_id import by_run_id, canonicalize, run_id

__all__ = [
    "FLAGS",
    "Advice",
    "Boundary",
    "Comparison",
    "CriticalBatch",
    "Crossing",
    "Domain",
    "Grid",
    "Metric",
    "NoiseScale",
    "Optimum",
    "Point",
    "Protocol",
    "RowEvidence",
    "RowTarget",
    "Scaling",
    "SeriesAdvice",
    "Sweep",
    "TargetPoint",
    "advise",
    "boundaries",
    "by_run_id",
    "canonicalize",
    "chain",
    "compare_series",
    "critical_batch_frame",
    "critical_batch_sizes",
    "doublings",
    "effective_learning_rate_of",
    "first_crossing",
    "fit_critical_batch",
    "fixed",
    "grid",
    "largest_stable",
    "learning_rate_laws",
    "noise_scales",
    "powers_of_two",
    "product",
    "propose_targets",
    "row_evidence",
    "run_id",
    "scaling_regions",
    "select",
    "steps_to_target",
    "targets_frame",
    "zipped",
]

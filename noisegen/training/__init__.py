"""Training of many runs at once: tasks, the pool, its speed settings."""

from noisegen.training.evaluation import metric_names
from noisegen.training.measurement import measure
from noisegen.training.plan import Plan, plan, plan_runs
from noisegen.training.pool import Pool, Progress, Result
from noisegen.training.probe import MEASURED, choose
from noisegen.training.run import Run, by_constants, make_runs, unique_runs
from noisegen.training.settings import PRECISIONS, Settings
from noisegen.training.snapshot import Checkpoints
from noisegen.training.task import Batch, Task, make_key

__all__ = [
    "MEASURED",
    "PRECISIONS",
    "Batch",
    "Checkpoints",
    "Plan",
    "Pool",
    "Progress",
    "Result",
    "Run",
    "Settings",
    "Task",
    "by_constants",
    "choose",
    "make_key",
    "make_runs",
    "measure",
    "metric_names",
    "plan",
    "plan_runs",
    "unique_runs",
]

"""Training of many runs at once: tasks, the pool, its speed settings."""

from noisegen.training.evaluation import metric_names
from noisegen.training.hparams import by_constants, check_runs
from noisegen.training.measurement import measure
from noisegen.training.plan import Plan, plan, plan_runs
from noisegen.training.pool import Pool, Progress, Result
from noisegen.training.probe import MEASURED, choose
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
    "Settings",
    "Task",
    "by_constants",
    "check_runs",
    "choose",
    "make_key",
    "measure",
    "metric_names",
    "plan",
    "plan_runs",
]

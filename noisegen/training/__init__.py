"""Trains many runs at once: tasks, runs and their plans, the pool and its config."""

from noisegen.training.autotune import MEASURED, autotune
from noisegen.training.config import PRECISIONS, PoolConfig
from noisegen.training.evaluation import MetricSpec, evaluate_params, metric_spec
from noisegen.training.lane_checkpoint import Checkpoints
from noisegen.training.plan import Plan, plan, plan_runs
from noisegen.training.pool import Pool, Progress, Result
from noisegen.training.run import Run, by_constants, make_runs, unique_runs
from noisegen.training.task import Batch, Task, make_key

__all__ = [
    "MEASURED",
    "PRECISIONS",
    "Batch",
    "Checkpoints",
    "MetricSpec",
    "Plan",
    "Pool",
    "PoolConfig",
    "Progress",
    "Result",
    "Run",
    "Task",
    "autotune",
    "by_constants",
    "evaluate_params",
    "make_key",
    "make_runs",
    "metric_spec",
    "plan",
    "plan_runs",
    "unique_runs",
]

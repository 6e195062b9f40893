"""Trains many runs at once: tasks, runs and their plans, the pool and its config."""

from noisegen.training.autotune import AUTOTUNED, autotune, choose_config
from noisegen.training.config import PRECISIONS, PoolConfig
from noisegen.training.evaluation import MetricSpec, evaluate_params, metric_spec
from noisegen.training.lane_checkpoint import Checkpoints
from noisegen.training.plan import Plan, plan
from noisegen.training.pool import Pool, Progress, Result
from noisegen.training.run import Run, by_constants, constants, make_runs
from noisegen.training.sources import Source, SourceError
from noisegen.training.task import Batch, Task, make_key
from noisegen.training.tracing import trace_program
from noisegen.training.weighted import Weighted

__all__ = [
    "AUTOTUNED",
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
    "Source",
    "SourceError",
    "Task",
    "Weighted",
    "autotune",
    "by_constants",
    "choose_config",
    "constants",
    "evaluate_params",
    "make_key",
    "make_runs",
    "metric_spec",
    "plan",
    "trace_program",
]

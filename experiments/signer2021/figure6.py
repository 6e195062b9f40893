"""Signer & Barbier, Figure 6: the square-root rule for the learning rate, then for the momentum

From batch size 2048 with momentum .9 on, the learning rate grows with the square root of the batch
size; or, from 4096 on, it stays and 1 / (1 - momentum) grows with the square root. Claims: 4096
improves; 8192 is unstable with the larger learning rate; with the larger momentum instead it
converges faster, but unstably too.

Reading: the momentum is rounded to three digits, .929, as in the authors' run.
"""

import ml_collections

import noisegen
from experiments import scales
from experiments.signer2021 import scaling_rules
from noisegen import sweeps

LABELS = ("learning rate scaled", "then momentum scaled")


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {"dataset": "mnist"},
            "base": {
                "batch_size": 2048,
                "learning_rate": 0.01,
                "momentum": 0.9,
                "momentum_batch_size": 4096,  # beyond, the momentum is scaled
            },
            "run": {
                "num_epochs": 30.0,
                "last_batch": "keep",
                "eval_every": 1.0,
                "warmup_epochs": 0.0,
                "warmup_rise": 0.0,
            },
            "grid": {
                "seed": (0, 1, 2),
                "batch_size": (2048, 4096, 8192),
                "momentum_batch_size": (8192,),
            },
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale == "test":
        config.base.update(batch_size=3, momentum_batch_size=5)
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), batch_size=(3, 5, 7), momentum_batch_size=(7,))
    return config


# Final test accuracy in percent.
_PUBLISHED = {
    (LABELS[0], 2048): (98.45, None),
    (LABELS[0], 4096): (98.18, None),
    (LABELS[0], 8192): (97.77, None),
    (LABELS[1], 8192): (97.89, None),
}


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    initial_momentum = config.base.momentum

    def label(run):
        is_scaled = run["momentum"] != initial_momentum
        return LABELS[1] if is_scaled else LABELS[0]

    points = _learning_rate_scaled(config) + _momentum_scaled(config)
    return sweeps.Sweep(
        lambda: scaling_rules.make_task(config),
        scaling_rules.make_sgd_runs(config, points),
        scaling_rules.make_protocol(config, series=label, labels=LABELS),
        published=_PUBLISHED,
    )


def _learning_rate_scaled(config):
    """Returns the points at which the learning rate grows with the batch size."""
    points = scaling_rules.rule_points(config, noisegen.square_root_rule)
    return [point | {"momentum": config.base.momentum} for point in points]


def _momentum_scaled(config):
    """Returns the points at larger batch sizes, at which the momentum grows instead."""
    base, rule = config.base, noisegen.square_root_rule
    turn = base.momentum_batch_size
    learning_rate = scaling_rules.scaled(config, turn, rule)
    points = []
    for batch_size in config.grid.momentum_batch_size:
        momentum = noisegen.scale_momentum(base.momentum, batch_size, turn, rule)
        points.append(
            {
                "learning_rate": learning_rate,
                "batch_size": batch_size,
                "momentum": round(momentum, 3),
            }
        )
    return points

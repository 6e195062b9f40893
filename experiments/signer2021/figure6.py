"""Signer & Barbier, Figure 6: the square-root rule for the learning rate, then for the momentum

From batch size 2048 with momentum .9 on, the learning rate grows with the square root of the batch
size; or, from 4096 on, it stays and 1 / (1 - momentum) grows with the square root. Claims: 4096
improves; 8192 is unstable with the larger learning rate; with the larger momentum instead it
converges faster, but unstably too.

Reading: the momentum is rounded to three digits, .929, as in the authors' run.
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_task  # noqa: F401

LABELS = ("learning rate scaled", "then momentum scaled")


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_sgd_config()
    del config.run.momentum  # the points have theirs
    config.base.update({"batch_size": 2048, "momentum": 0.9, "momentum_batch_size": 4096})
    config.grid.update({"batch_size": (2048, 4096, 8192), "momentum_batch_size": (8192,)})
    return config


def get_runs(config):
    return common.sgd_runs(config, [*_learning_rate_scaled(config), *_momentum_scaled(config)])


def get_protocol(config):
    initial = config.base.momentum
    return common.get_protocol(
        config, series=lambda run: LABELS[run["momentum"] != initial], labels=LABELS
    )


def get_published(config):
    """Final test accuracy in percent."""
    del config
    first, then = LABELS
    sizes, accuracies = (2048, 4096, 8192), (98.45, 98.18, 97.77)
    rates = {(first, size): (value, None) for size, value in zip(sizes, accuracies, strict=True)}
    return rates | {(then, 8192): (97.89, None)}


def _learning_rate_scaled(config):
    momentum = {"momentum": config.base.momentum}
    return [point | momentum for point in common.rule_points(config, noisegen.square_root_rule)]


def _momentum_scaled(config):
    base, rule = config.base, noisegen.square_root_rule
    turn = base.momentum_batch_size
    rate = {"learning_rate": common.scaled(config, turn, rule)}
    for size in config.grid.momentum_batch_size:
        momentum = noisegen.scale_momentum(base.momentum, size, turn, rule)
        yield rate | {"batch_size": size, "momentum": round(momentum, 3)}

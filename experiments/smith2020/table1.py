"""Smith, Elsen & De, Table 1: constant step budget, CIFAR-10, Wide-ResNet with ghost batch norm

Claim: with the number of updates held at 9765 and the learning rate tuned for each batch size, the
final training loss falls as the batch grows while the test accuracy first rises and then, beyond
2048 examples, falls: the noise of small batches helps generalisation.
"""

from experiments.smith2020 import wide_resnet
from experiments.smith2020.common import get_protocol, get_runs  # noqa: F401
from experiments.smith2020.wide_resnet import get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "num_updates": 9765,
        "batch_size": sweeps.powers_of_two(256, 32768),
        "effective_learning_rate": sweeps.powers_of_two(1, 64),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_updates": 9765,
        "batch_size": sweeps.powers_of_two(256, 4096),
        "effective_learning_rate": sweeps.powers_of_two(4, 16),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "num_updates": 500,
        "batch_size": sweeps.powers_of_two(16, 2048),
        "effective_learning_rate": sweeps.powers_of_two(2**-2, 8),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu", **task):
    """Every field that `--config.NAME=VALUE` may override."""
    return wide_resnet.make_config(scale, _BY_SCALE, **task)


def get_published(config):
    """Test accuracy in percent, final training loss, effective learning rate with its bar."""
    paper = get_config("paper")
    paper.task.dtype = config.task.dtype
    if config.task != paper.task or config.run != paper.run:
        return {}  # another experiment
    rows = {
        256: ((93.5, 0.1), (0.232, 0.001), (4, 2, 4)),
        512: ((94.2, 0.1), (0.171, 0.001), (4, 4, 8)),
        1024: ((94.5, 0.1), (0.107, 0.001), (8, 8, 8)),
        2048: ((94.9, 0.1), (0.058, 0.000), (8, 8, 8)),
        4096: ((94.7, 0.1), (0.025, 0.000), (16, 16, 32)),
        8192: ((94.6, 0.1), (0.017, 0.000), (4, 4, 4)),
        16384: ((92.5, 0.6), (0.019, 0.004), (32, 16, 32)),
        32768: ((89.9, 0.7), (0.039, 0.011), (32, 1, 32)),
    }
    names = ("test_accuracy", "train_loss", "effective_learning_rate")
    return {("", size): dict(zip(names, values, strict=True)) for size, values in rows.items()}

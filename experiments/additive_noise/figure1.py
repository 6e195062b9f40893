"""Additive gradient noise, Figure 1: MNIST, test accuracy at every epoch

Claim of the draft "Even larger batch size with additive gradient noise": at batch size 16384 and
learning rate .1 the test accuracy "oscillates wildly" without noise, with a drop of 50 points,
before it settles in the low 90s; noise of eta = .3 smoothes it out completely.

Readings as in Table 1. The draft shows one run of each kind; here are five.
"""

from experiments.additive_noise import table1

get_task = table1.get_task
get_runs = table1.get_runs
get_protocol = table1.get_protocol


def get_config():
    """The configuration of Table 1, at the one point that the figure shows."""
    config = table1.get_config()
    config.grid.update(
        {
            "seed": (0, 1, 2, 3, 4),
            "eta": (0.0, 0.3),
            "learning_rate": (0.1,),
            "batch_size": (16384,),
        }
    )
    return config

"""Additive gradient noise, Figure 2: MNIST, full-batch gradient descent with and without noise

Claims of the draft "Even larger batch size with additive gradient noise": with the whole training
set as the batch, noise of eta = 1 "significantly accelerates" training, and after 100 epochs, which
are 100 updates, the test accuracy is "higher by 5%". No number is printed.

Readings as in Table 1, momentum .5 included; the learning rate of .01 is the draft's. It shows one
run of each kind; here are three, each of 6 million images, which is minutes of a processor core.
"""

from experiments.additive_noise import table1

get_task = table1.get_task
get_runs = table1.get_runs
get_protocol = table1.get_protocol


def get_config():
    """The configuration of Table 1, with the whole training set as the batch."""
    config = table1.get_config()
    config.run.num_epochs = 100.0
    config.grid.update({"eta": (0.0, 1.0), "learning_rate": (0.01,), "batch_size": (60_000,)})
    return config

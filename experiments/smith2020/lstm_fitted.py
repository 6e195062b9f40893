"""Smith, Elsen & De, appendix D on words that are fitted: constant step budget, LSTM

Claim of the main text: the test loss gets worse at very large batches even at a constant step
budget. `lstm.py:cpu` reads its text less than twice, so its training loss cannot fall below the
test loss. Here a smaller network is trained on the first 2,600 words of the same text, which it
reads up to 2,000 times.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import lstm
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = lstm.get_config(scale)
    config.task.train_words = 2600
    config.task.update(vocabulary_size=200, hidden=32, window=10)
    config.run.update(num_updates=2000, num_evals=5)
    config.grid.update(
        seed=tuple(range(5)),
        batch_size=sweeps.powers_of_two(4, 256),
        effective_learning_rate=sweeps.powers_of_two(2**-4, 2),
    )
    config.update(best=4, search="race")  # of the seeds
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return lstm.get_sweep(config)

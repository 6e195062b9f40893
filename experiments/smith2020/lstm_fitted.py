"""Smith, Elsen & De, appendix D on words that are fitted: constant step budget, LSTM

Claim of the main text: the test loss gets worse at very large batches even at a constant step
budget. `lstm.py:cpu` reads its text less than ten times, and its training loss stays above the test
loss. Here a smaller network, with the dropout of Zaremba et al., is trained on the first 2,816
words of the same text, in windows of 10. The largest batch is the whole text, in 256 streams of one
window each. The training loss is with dropout, so it is above that of the network as tested.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import lstm
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = lstm.get_config("cpu")
    config.task.train_words = 2816  # 256 streams of a window and the word after it
    config.task.update(vocabulary_size=200, hidden=32, dropout=0.5, window=10)
    config.run.update(num_updates=2000, num_evals=5)
    config.grid.update(
        seed=tuple(range(5)),
        batch_size=sweeps.powers_of_two(4, 256),
        effective_learning_rate=sweeps.powers_of_two(2**-3, 2),
    )
    config.update(best=4, search="race")  # best 4 of the seeds
    if scale == "test":
        config.task.update(train_words=40, vocabulary_size=20, hidden=4, window=5)
        config.run.num_updates = 20
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return lstm.get_sweep(config)

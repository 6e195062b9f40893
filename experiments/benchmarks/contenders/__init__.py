"""The programs that train the grid of `experiments.benchmarks.mnist`, each in its own process."""

"""Programs that `experiments.benchmarks` compares, each in a process of its own."""

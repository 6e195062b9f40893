"""Smith, Elsen & De, On the Generalization Benefit of Noise in Stochastic Gradient Descent (2020).

Each experiment has four scales, named after a colon (`table1.py:gpu`). `paper` is as published,
`gpu` trains a part of it on one H100, `cpu`, the default, a smaller network on less data, on
two cores. `test` takes seconds. `--dry_run --target=h100` estimates the time of `gpu`.
"""

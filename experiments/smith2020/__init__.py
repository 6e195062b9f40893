"""Smith, Elsen & De, On the Generalization Benefit of Noise in Stochastic Gradient Descent (2020).

Each experiment has four scales, named after a colon (`table1.py:gpu`). `paper` is as published,
`gpu` takes one H200 about an hour, `cpu`, the default, trains a smaller network on less data, for
two cores. `test` takes seconds.
"""

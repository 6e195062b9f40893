"""Smith, Elsen & De, On the Generalization Benefit of Noise in Stochastic Gradient Descent (2020).

Each experiment has three scales, named after a colon (`table1.py:gpu`): `paper`, as published;
`gpu`, what one H200 does in about an hour; `cpu`, the default, a smaller network on less data, for
two cores.
"""

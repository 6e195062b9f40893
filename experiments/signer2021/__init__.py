"""Signer & Barbier, a report of 2021 on scaling rules for large batches: LeNet-5 on MNIST.

Nothing is tuned but the learning rate of the smallest batch size, `base_rate.py`; every other run
has the one that a rule gives. All SGD experiments are one task, so equal runs of two figures, such
as batch size 64 of Figures 1, 2 and 3, give equal results.
"""

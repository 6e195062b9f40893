"""Signer & Barbier, a report of 2021 on scaling rules for large batches: LeNet-5 on MNIST.

Only the learning rate of the smallest batch size is tuned, by `base_rate.py`. A rule gives every
other run its learning rate. All SGD experiments are one task, so equal runs of two figures, such as
batch size 64 of Figures 1, 2 and 3, have the same run id. Their results may differ: rounding
depends on the microbatch, which is chosen for speed, and moves a single run by tenths of a point of
accuracy. Scales: `paper`, the default, and `test`, which takes seconds.
"""

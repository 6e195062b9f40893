"""Jaiswal & Taura, on large mini-batches with white noise added to the gradient.

ResNet-50 on Caltech-101 with learning rate over batch size held constant. `constant_ratio.py` holds
the network, data and learning rates that the experiments share, and our readings of the paper.
"""

"""Jaiswal & Taura, on large mini-batches with white noise added to the gradient.

ResNet-50 on Caltech-101 with learning rate over batch size held constant. What the experiments
share, and how the paper is read, is in `common.py`.
"""

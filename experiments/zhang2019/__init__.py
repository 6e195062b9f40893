"""Zhang et al. (2019), on the noisy quadratic model of training with large batches.

The steps to a target, the critical batch size and the gradient noise scale have exact values there.
`exact.py` calculates them, and `plots/steps_to_target.py` compares a sweep with them.
"""

"""The cost of spreading a batch, by hand."""

import pytest

from experiments.benchmarks import multi_gpu_estimate


def test_operations_and_parameters_are_those_that_are_known():
    """He et al. have 4.1e9 multiply-adds for ResNet-50, Zagoruyko & Komodakis 2.75e6 parameters."""
    operations, size = multi_gpu_estimate.gradient_size(
        *multi_gpu_estimate.NETWORKS["ResNet-50, 224 x 224"]
    )
    # XLA does not count the positions in the padding of a convolution; He et al. do.
    assert 0.96 < operations / (3 * 2 * 4.1e9) < 1
    assert size == pytest.approx(4 * 25.6e6, rel=0.01)
    _, size = multi_gpu_estimate.gradient_size(*multi_gpu_estimate.NETWORKS["WRN-16-4, 32 x 32"])
    assert size == pytest.approx(4 * 2.75e6, rel=0.02)


def test_a_single_host_needs_no_network_between_hosts():
    arithmetic, total = multi_gpu_estimate.seconds(1000, 2e9, 8e6, 1)
    assert arithmetic == pytest.approx(1000 * 2e9 / (8 * 0.3 * 989e12))
    assert total == pytest.approx(1.75 * 8e6 / 450e9 + 14e-5)
    assert multi_gpu_estimate.seconds(1000, 2e9, 8e6, 2)[1] > total


def test_at_the_least_batch_size_the_sum_takes_a_tenth():
    least = multi_gpu_estimate.least_batch_size(2e9, 8e6, 4)
    arithmetic, total = multi_gpu_estimate.seconds(least, 2e9, 8e6, 4)
    assert total == pytest.approx(arithmetic / 10)

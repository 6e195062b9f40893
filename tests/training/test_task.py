"""A task's arrays must belong together."""

import dataclasses

import numpy as np
import pytest


@pytest.mark.parametrize(
    "train, lengths",
    [
        ({"x": np.zeros((4, 2)), "y": np.zeros(3)}, "3, 4"),
        (np.zeros((0, 2)), "0"),
        (np.float32(1), ""),
    ],
)
def test_arrays_share_one_leading_axis(tanh_task, train, lengths):
    message = rf"Task 'tanh': the arrays of 'train' must share .* got lengths \[{lengths}\]"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tanh_task, train=train)


def test_a_split_has_arrays(tanh_task):
    with pytest.raises(ValueError, match="'train' has no arrays. Give a dict of arrays"):
        dataclasses.replace(tanh_task, train={})


def test_number_of_examples(tanh_task):
    assert tanh_task.num_examples == 60

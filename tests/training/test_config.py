"""Speed settings that cannot work are refused with the number to change."""

import pytest

from noisegen import training


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"lanes": 0}, "lanes=0 must be a whole number of at least 1"),
        ({"microbatch": 2.5}, "microbatch=2.5 must be a whole number"),
        ({"lanes_per_rare_step": -1}, "lanes_per_rare_step=-1 must be a whole number"),
        ({"lanes": 2.0}, "lanes=2.0 must be a whole number"),
        ({"lanes": None}, "lanes=None must be a whole number"),
        ({"precision": "foo"}, "precision='foo' must be one of .*'highest'"),
        ({"host_sync_seconds": 0}, "host_sync_seconds=0 must be a number above 0"),
        ({"host_sync_seconds": float("nan")}, "host_sync_seconds=nan must be"),
        ({"data": "disk"}, r"data='disk' must be one of \('device', 'host'\), or None"),
        ({"lanes": 3, "lane_devices": 2}, "lanes=3 must be a multiple of lane_devices=2"),
        ({"microbatch": 6, "batch_devices": 4}, "microbatch=6 must be a multiple of batch_devices"),
        ({"eval_batch": 9, "batch_devices": 2}, "eval_batch=9 must be a multiple of batch_devices"),
    ],
)
def test_settings_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        training.PoolConfig(**fields)

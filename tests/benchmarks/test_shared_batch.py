"""The cost of spreading a batch, by hand."""

import json
import math
import pathlib

import pytest

from experiments.benchmarks import report, shared_batch

HOSTS = shared_batch.NETWORKS["h100:8"]
README = pathlib.Path(shared_batch.__file__).with_name("README.md")


def program(**changes):
    numbers = {
        "examples": 8192,
        "collectives": 0,
        "collectives_per_update": 1,
        "summed_bytes_per_update": 8e6,
        "seconds_per_update_at_least": 1e-4,
        "examples_per_second_at_most": 1e6,
    }
    return numbers | changes


def recorded():
    return json.loads((shared_batch.RECORD / "budget.json").read_text())


def test_a_single_host_needs_no_network_between_hosts():
    alone = shared_batch.sum_seconds(program(), 8, HOSTS)
    assert alone == pytest.approx(1.75 * 8e6 / 450e9 + 14e-5)
    two = shared_batch.sum_seconds(program(), 16, HOSTS)
    assert two == pytest.approx(alone + 1e6 / 50e9 + 2e-5)
    pieces = shared_batch.sum_seconds(program(collectives_per_update=3), 8, HOSTS)
    assert pieces == pytest.approx(alone + 2 * 14e-5)


@pytest.mark.parametrize("gathers", [0, 3, 18])
def test_at_the_least_batch_size_the_overhead_takes_a_tenth(gathers):
    """With 18 gathers the update takes several micro-steps, of 16,384 examples each."""
    numbers = program(collectives=gathers)
    least = shared_batch.least_batch_size(numbers, 16, HOSTS)
    kernels = least / (0.5 * 1e6 * 16 / 8)
    micro_steps = max(1, least / 16384)
    overhead = 2e-4 + shared_batch.sum_seconds(numbers, 16, HOSTS) + micro_steps * gathers * 8e-5
    assert overhead == pytest.approx(kernels / 10)
    assert (least > 16384) == (gathers == 18)


def test_gathers_that_take_more_than_a_tenth_of_their_micro_step_never_pay():
    assert shared_batch.least_batch_size(program(collectives=21), 16, HOSTS) == math.inf


def test_a_device_gets_a_whole_ghost_batch():
    assert shared_batch.least_batch_size(program(), 8, HOSTS, ghost_size=4096) == 8 * 4096


def test_recorded_sums_have_the_size_of_the_parameters():
    """Zagoruyko & Komodakis have 2.75e6 parameters, He et al. 25.6e6; here they are float32."""
    known = {"wide_resnet_8_devices": 2.75e6, "resnet50_224_8_devices": 25.6e6}
    for name, count in known.items():
        for target in shared_batch.NETWORKS:
            found = recorded()[f"{name}/{target}"]
            assert found["summed_bytes_per_update"] == pytest.approx(4 * count, rel=0.02)


def test_the_readme_has_the_rows_of_the_record():
    rows = report.table((), shared_batch.rows(recorded())).splitlines()[2:]
    assert len(rows) == 20 and set(rows) <= set(README.read_text().splitlines())

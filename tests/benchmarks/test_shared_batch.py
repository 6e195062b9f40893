"""The cost of spreading a batch, by hand."""

import json

import pytest

from experiments.benchmarks import shared_batch

HOSTS = shared_batch.NETWORKS["h100:8"]


def program(**changes):
    numbers = {
        "examples": 8192,
        "collectives": 0,
        "collectives_per_update": 1,
        "collective_bytes_per_update": 8e6,
        "seconds_per_update_at_least": 1e-4,
        "examples_per_second_at_most": 1e6,
    }
    return numbers | changes


def test_a_single_host_needs_no_network_between_hosts():
    alone = shared_batch.sum_seconds(8e6, 1, 8, HOSTS)
    assert alone == pytest.approx(1.75 * 8e6 / 450e9 + 14e-5)
    two = shared_batch.sum_seconds(8e6, 1, 16, HOSTS)
    assert two == pytest.approx(alone + 1e6 / 50e9 + 2e-5)
    assert shared_batch.sum_seconds(8e6, 3, 8, HOSTS) == pytest.approx(alone + 2 * 14e-5)


def test_at_the_least_batch_size_update_and_sum_take_a_tenth():
    least = shared_batch.least_batch_size(program(), 16, HOSTS)
    micro_steps = least / (0.5 * 1e6 * 16 / 8)
    rest = 2e-4 + shared_batch.sum_seconds(8e6, 1, 16, HOSTS)
    assert rest == pytest.approx(micro_steps / 10)


def test_gathers_of_the_micro_steps_let_smaller_batches_pay():
    least = shared_batch.least_batch_size(program(collectives=1), 8, HOSTS)
    alone = shared_batch.least_batch_size(program(), 8, HOSTS)
    kernels, gather = 8192 / 0.5e6, 7e-5
    assert least == pytest.approx(alone * kernels / (kernels + gather))


def test_rows_are_those_that_are_recorded():
    table = shared_batch.rows({"wide_resnet_8_devices/h100:8": program()})
    assert [row[1] for row in table] == [f"{size} h100" for size in HOSTS.sizes]


def test_recorded_sums_have_the_size_of_the_parameters():
    """Zagoruyko & Komodakis have 2.75e6 parameters, He et al. 25.6e6; here they are float32."""
    record = json.loads((shared_batch.RECORD / "budget.json").read_text())
    known = {"wide_resnet_8_devices": 2.75e6, "resnet50_224_8_devices": 25.6e6}
    for name, count in known.items():
        for target in shared_batch.NETWORKS:
            if found := record.get(f"{name}/{target}"):
                assert found["collective_bytes_per_update"] == pytest.approx(4 * count, rel=0.02)

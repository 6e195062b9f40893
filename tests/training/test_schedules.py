"""Every schedule at every horizon trains in one program, as a plain loop with optax's schedule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import noisegen
from noisegen import training

RATE = 0.1
HORIZONS = (1, 4, 15, 32)


def piecewise(package, rate, n):
    pairs = [(n // 2, 0.5), (n // 2 + 1, 0.1)]
    # A traced boundary cannot be the key of a dictionary.
    return package.piecewise_constant_schedule(rate, pairs if package is noisegen else dict(pairs))


def joined(package, rate, n):
    rise = package.linear_schedule(0.0, rate, n // 4)
    fall = package.polynomial_schedule(rate, 0.0, 2.0, n - n // 4)
    return package.join_schedules([rise, fall], [n // 4])


SCHEDULES = [  # package, learning rate, horizon -> schedule
    lambda package, rate, n: package.constant_schedule(rate),
    lambda package, rate, n: package.linear_schedule(rate, rate / 10, n),
    lambda package, rate, n: package.polynomial_schedule(rate, 0.0, 2.0, n - 1, 1),
    lambda package, rate, n: package.exponential_decay(rate, n, 0.1),
    lambda package, rate, n: package.exponential_decay(rate, n // 3, 0.1, 1, True, rate / 50),
    lambda package, rate, n: package.cosine_decay_schedule(rate, n, alpha=0.1),
    lambda package, rate, n: package.warmup_constant_schedule(0.0, rate, n // 2),
    lambda package, rate, n: package.warmup_cosine_decay_schedule(0.0, rate, n // 4, n),
    lambda package, rate, n: package.linear_onecycle_schedule(n + 1, rate),
    lambda package, rate, n: package.cosine_onecycle_schedule(n, rate),
    piecewise,
    joined,
]


def make_optimizer(hparams, key):
    def schedule(count):
        rate, n = hparams["learning_rate"], hparams["num_updates"]
        values = [make(noisegen, rate, n)(count) for make in SCHEDULES]
        return jnp.stack(values)[hparams["schedule"].astype(int)]

    return optax.sgd(schedule)


def loss(params, state, batch):
    return (jnp.tanh(batch.data["x"] @ params["w"]) - batch.data["y"]) ** 2, state


@pytest.mark.slow
def test_a_sweep_of_schedules_and_horizons_is_one_program_and_equals_plain_loops(tanh_task):
    # Each batch is the whole training set, so the order of the examples does not matter.
    first = {"w": jnp.linspace(-1.0, 1.0, 4)}
    data = training.Batch(tanh_task.train, keys=None, mask=None)
    gradient = jax.jit(jax.grad(lambda params: jnp.mean(loss(params, (), data)[0])))
    task = dataclasses.replace(
        tanh_task,
        init=lambda key: (first, ()),
        loss=loss,
        metrics=lambda params, state, batch: {"test_loss": loss(params, state, batch)[0]},
        make_optimizer=make_optimizer,
    )
    size = tanh_task.num_examples
    common = {"batch_size": size, "learning_rate": RATE, "seed": 0}
    runs = [
        common | {"schedule": index, "num_updates": n}
        for index in range(len(SCHEDULES))
        for n in HORIZONS
    ]
    pool = training.Pool(task, training.PoolConfig(lanes=8, microbatch=size))
    results = list(pool.train(runs, keep_params=True))
    assert len(results) == len(runs)
    [program] = pool._programs.values()
    assert program._advance._cache_size() == 1

    for result in results:
        index, n = result.hparams["schedule"], result.hparams["num_updates"]
        tx = optax.sgd(SCHEDULES[index](optax, RATE, n))
        params, state = first, tx.init(first)
        for _ in range(n):
            updates, state = tx.update(gradient(params), state)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(
            result.params["w"], params["w"], rtol=2e-5, atol=1e-6, err_msg=f"{index} {n}"
        )

"""Tests one table of all transforms and schedules against one list of requirements."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training import train_state
from jax.sharding import NamedSharding, PartitionSpec

import noisegen
from noisegen import diagnostics


def scale_by(schedule):
    """Makes a transform from a schedule."""
    return lambda key, x: optax.scale_by_schedule(schedule(x))


def of_batch(tx):
    """Passes a transform a batch of 4 examples whose gradients have variance 1."""

    def update(updates, state, params=None):
        noise = diagnostics.GradientNoise(1.0, 1.0, jax.tree.map(jnp.ones_like, updates))
        return tx.update(updates, state, params, batch_size=4, gradient_noise=noise)

    return optax.GradientTransformation(tx.init, update)


NOISES = {  # name: (key, x) -> transform; x is any of its numbers, and may be traced
    "normal": lambda key, x: noisegen.add_gradient_noise(x, key),
    "uniform": lambda key, x: noisegen.add_gradient_noise(x, key, sampler=noisegen.uniform_noise),
    "sphere": lambda key, x: noisegen.add_gradient_noise(x, key, sampler=noisegen.sphere_noise),
    "decaying": lambda key, x: noisegen.add_gradient_noise(
        noisegen.power_decay_schedule(x, 0.55), key
    ),
    "langevin": lambda key, x: noisegen.langevin_noise(x, noisegen.power_decay_schedule(x, x), key),
    "matched": lambda key, x: of_batch(noisegen.matched_noise(4 / (1 + x), key)),
}
SCHEDULES = {  # name: x -> schedule
    "power_decay": lambda x: noisegen.power_decay_schedule(x, x),
    "power_decay_from_variance": lambda x: noisegen.power_decay_from_variance_schedule(x, x),
    "hold_then_decay": lambda x: noisegen.hold_then_decay_schedule(x, 20 + 10 * x, 1 / (1 + x)),
    "hold_then_decay_to": lambda x: noisegen.hold_then_decay_to_schedule(x, 20 + 10 * x, x / 2),
    "step_decay": lambda x: noisegen.step_decay_schedule(x, (0.5, 2), x, 10 * x),
    "constant_warmup": lambda x: noisegen.constant_warmup_schedule(x, 2 * x, 5 * x),
    "gradual_warmup": lambda x: noisegen.gradual_warmup_schedule(
        x, noisegen.power_decay_schedule(2 * x, x), 8 * x, num_steps_per_increment=2
    ),
    "linear": lambda x: noisegen.linear_schedule(x, 2 * x, 5 * x, x),
    "polynomial": lambda x: noisegen.polynomial_schedule(x, 2 * x, 1 + x, 5 * x, x),
    "exponential_decay": lambda x: noisegen.exponential_decay(x, 5 * x, x, x, end_value=x / 2),
    "cosine_decay": lambda x: noisegen.cosine_decay_schedule(x, 5 * x, x, 1 + x),
    "warmup_cosine_decay": lambda x: noisegen.warmup_cosine_decay_schedule(
        x, 2 * x, 2 * x, 9 * x, x / 2, 1 + x
    ),
    "warmup_inverse_square_root": lambda x: noisegen.warmup_inverse_square_root_schedule(
        x, 2 * x, 1 + x
    ),
    "linear_onecycle": lambda x: noisegen.linear_onecycle_schedule(9 * x, x, x / 2),
    "cosine_onecycle": lambda x: noisegen.cosine_onecycle_schedule(9 * x, x, x / 2),
    "piecewise_constant": lambda x: noisegen.piecewise_constant_schedule(x, [(x, x), (5 * x, x)]),
}
TRANSFORMS = (
    NOISES
    | {
        "scale_by_temperature": lambda key, x: noisegen.scale_by_temperature(
            noisegen.power_decay_schedule(x, x), batch_size=lambda t: 64 + t, momentum=x
        )
    }
    | {name: scale_by(schedule) for name, schedule in SCHEDULES.items()}
)
every_noise = pytest.mark.parametrize("make", NOISES.values(), ids=NOISES)
every_transform = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
# Optax makes transforms of the schedules, so one of them is quick where any would do.
SLOW = [name for name in SCHEDULES if name != "power_decay"]
every_link = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, make in TRANSFORMS.items()
    ],
)
KINDS = ["normal", "sphere", "scale_by_temperature"]  # for the slow ones, one of every kind
every_kind = pytest.mark.parametrize("make", [TRANSFORMS[name] for name in KINDS], ids=KINDS)

KEY = jax.random.key(3)


def gradients(dtype=jnp.float32):
    """Returns a small tree with a scalar and an empty branch."""
    w_8x4 = jnp.linspace(-1, 1, 32, dtype=dtype).reshape(8, 4)
    return {"a": {"w": w_8x4, "b": jnp.ones((8,), dtype)}, "none": None, "s": jnp.ones((), dtype)}


def run(tx, grads, num_updates=4, compiled=False):
    """Returns updates and state after several updates by the same gradients."""
    state = tx.init(grads)
    update = jax.jit(tx.update) if compiled else tx.update
    for _ in range(num_updates):
        updates, state = update(grads, state, grads)
    return updates, state


def assert_equal(actual, expected, rtol=0.0):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(
            np.asarray(x, np.float32), np.asarray(y, np.float32), rtol, atol=rtol
        )


def noise_of(tx, grads):
    return jax.tree.map(jnp.subtract, run(tx, grads)[0], grads)


# Requirements of every transform, and of every schedule as a transform.


@every_link
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_structure_and_dtypes_are_kept(make, dtype):
    grads = gradients(dtype)
    tx = make(KEY, 0.3)
    updates, state = run(tx, grads, num_updates=1)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == jax.tree.map(
        lambda x: (x.shape, x.dtype), grads
    )
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, tx.init(grads))
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves(updates))


@every_transform
def test_one_compilation_serves_every_key_number_and_step(make):
    step = jax.jit(lambda key, x, grads, state: make(key, x).update(grads, state))
    expected_state = state = make(KEY, 0.3).init(gradients())
    for _ in range(3):
        updates, state = step(KEY, 0.3, gradients(), state)
        expected, expected_state = make(KEY, 0.3).update(gradients(), expected_state)
        assert_equal(updates, expected, rtol=1e-6)
    step(jax.random.key(9), 0.7, gradients(), make(jax.random.key(9), 0.7).init(gradients()))
    assert step._cache_size() == 1


@every_transform
def test_vmap_over_runs_is_a_loop_over_runs(make):
    keys, xs = jax.random.split(jax.random.key(4), 3), jnp.array([0.2, 0.5, 0.8])
    batched, _ = jax.vmap(lambda key, x: run(make(key, x), gradients()))(keys, xs)
    for i in range(3):
        single, _ = run(make(keys[i], xs[i]), gradients())
        assert_equal(jax.tree.map(lambda x, i=i: x[i], batched), single, rtol=1e-6)


@every_link
def test_extra_arguments_and_param_mapping(make):
    tx = optax.with_extra_args_support(make(KEY, 0.3))
    _, state = tx.update(gradients(), tx.init(gradients()), gradients(), value=1.0)
    assert_equal(optax.tree.map_params(tx, lambda x: x + 1, state), state)


@every_link
def test_chain_with_momentum_keeps_what_the_link_does_alone(make):
    link = make(KEY, 0.3)
    chained, _ = run(optax.chain(link, optax.sgd(0.5, momentum=0.0)), gradients())
    assert_equal(chained, jax.tree.map(lambda x: -0.5 * x, run(link, gradients())[0]), rtol=1e-6)


@every_link
def test_masked_leaves_pass_and_the_others_do_not_notice(make):
    mask = {"a": {"w": False, "b": True}, "none": None, "s": True}
    masked, _ = run(optax.masked(make(KEY, 0.3), mask), gradients())
    full, _ = run(make(KEY, 0.3), gradients())
    assert_equal(masked["a"]["w"], gradients()["a"]["w"])
    if make is not NOISES["sphere"]:  # whose radius counts the unmasked coordinates
        assert_equal((masked["a"]["b"], masked["s"]), (full["a"]["b"], full["s"]))


@every_link
def test_partition_into_two_groups(make):
    labels = {"a": {"w": "x", "b": "y"}, "none": None, "s": "x"}
    tx = optax.partition({"x": make(KEY, 0.3), "y": make(KEY, 0.3)}, labels)
    updates, _ = run(tx, gradients())
    if make is not NOISES["sphere"]:
        assert_equal(updates, run(make(KEY, 0.3), gradients())[0])


@every_link
def test_inject_hyperparams(make):
    tx = optax.inject_hyperparams(make)(KEY, x=0.3)
    updates, state = run(tx, gradients())
    assert_equal(updates, run(make(KEY, 0.3), gradients())[0], rtol=1e-6)
    state.hyperparams["x"] = jnp.float32(0.6)
    changed, _ = tx.update(gradients(), state, gradients())
    assert not np.allclose(changed["a"]["w"], updates["a"]["w"])


@every_kind
def test_apply_if_finite_rejects_a_step_and_leaves_no_trace(make):
    tx = optax.apply_if_finite(make(KEY, 0.3), max_consecutive_errors=5)
    update, state = jax.jit(tx.update), tx.init(gradients())
    for scale in (1.0, 1.0, jnp.nan, 1.0):
        updates, state = update(jax.tree.map(lambda x, s=scale: s * x, gradients()), state)
    assert_equal(updates, run(make(KEY, 0.3), gradients(), num_updates=3)[0], rtol=1e-6)


@every_kind
def test_inside_multi_steps_it_acts_once_per_update(make):
    tx = optax.MultiSteps(make(KEY, 0.3), every_k_schedule=2)
    updates, _ = run(tx, gradients(), num_updates=6, compiled=True)
    assert_equal(updates, run(make(KEY, 0.3), gradients(), num_updates=3)[0], rtol=1e-6)


@every_kind
def test_donated_state_leaves_the_transform_usable(make):
    tx = make(KEY, 0.3)
    jax.jit(lambda state: tx.update(gradients(), state), donate_argnums=0)(tx.init(gradients()))
    run(tx, gradients())


@every_kind
def test_checkpoint_and_restart_go_on_as_if_nothing_happened(make, tmp_path):
    _, state = run(make(KEY, 0.3), gradients(), num_updates=3)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        other = make(jax.random.key(99), 0.3)  # the noise stream comes from the state
        restored = checkpointer.restore(tmp_path / "state", other.init(gradients()))
    assert_equal(other.update(gradients(), restored)[0], run(make(KEY, 0.3), gradients())[0])


@pytest.mark.slow
@every_kind
def test_sharded_parameters_get_the_same_updates_in_the_same_place(make):
    mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    tx, grads = make(KEY, 0.3), gradients()
    specs = {"a": {"w": PartitionSpec("i"), "b": PartitionSpec("i")}, "none": None}
    specs["s"] = PartitionSpec()
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    sharded = jax.device_put(grads, shardings)
    updates, _ = jax.jit(tx.update)(sharded, tx.init(sharded))
    expected, _ = jax.jit(tx.update)(grads, tx.init(grads))
    assert_equal(updates, expected, rtol=1e-6)
    assert updates["a"]["w"].sharding.is_equivalent_to(shardings["a"]["w"], 2)


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("mapped", [jax.shard_map, jax.pmap])
def test_every_device_of_a_data_parallel_run_gets_the_same_update(make, mapped):
    grads_8 = jax.tree.map(lambda x: jnp.stack([i * x for i in range(8)]), gradients())
    tx = make(KEY, 0.3)

    def update(grads, state):
        grads = jax.tree.map(lambda x: jax.lax.pmean(x, "i"), grads)
        return tx.update(grads, state)[0]

    if mapped is jax.pmap:
        updates = jax.pmap(update, axis_name="i", in_axes=(0, None))(grads_8, tx.init(None))
    else:
        mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = PartitionSpec("i")
        mapped = jax.shard_map(
            lambda g, s: jax.tree.map(lambda x: x[None], update(jax.tree.map(jnp.squeeze, g), s)),
            mesh=mesh,
            in_specs=(spec, PartitionSpec()),
            out_specs=spec,
        )
        updates = jax.jit(mapped)(grads_8, tx.init(None))
    mean = jax.tree.map(lambda x: x.mean(0), grads_8)
    for i in range(8):
        on_device = jax.tree.map(lambda x, i=i: x[i], updates)
        assert_equal(on_device, tx.update(mean, tx.init(None))[0], rtol=1e-6)


@every_kind
def test_flax_optimizer_and_train_state_step_as_optax_does(make):
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    tx = optax.chain(make(KEY, 0.3), optax.sgd(0.1, momentum=0.9))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    linen = train_state.TrainState.create(apply_fn=nn.Dense(3).apply, params=params, tx=tx)
    opt_state = tx.init(params)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))

    ones = jax.tree.map(jnp.ones_like, params)
    for _ in range(2):
        updates, opt_state = tx.update(ones, opt_state, params)
        params = optax.apply_updates(params, updates)
        step(model, optimizer)
        linen = linen.apply_gradients(grads=ones)
    assert_equal(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params, rtol=1e-6)
    assert_equal(linen.params, params, rtol=1e-6)


# What every kind of noise must stand besides.


@every_noise
def test_noise_is_a_pure_function_of_key_and_step(make):
    tx = make(KEY, 0.3)
    _, state = run(tx, gradients())
    jumped = (tx.init(None))._replace(count=jnp.int32(4))
    assert_equal(tx.update(gradients(), jumped), tx.update(gradients(), state))
    assert_equal(run(make(jax.random.clone(KEY), 0.3), gradients()), run(tx, gradients()))


@every_noise
def test_noise_does_not_depend_on_the_gradient(make):
    zeros = jax.tree.map(jnp.zeros_like, gradients())
    tx = make(KEY, 0.3)
    assert_equal(noise_of(tx, gradients()), noise_of(tx, zeros), rtol=1e-6)


@every_noise
def test_noise_differs_over_keys_steps_and_leaves(make):
    grads = {"u": jnp.zeros(50), "v": jnp.zeros(50)}
    draws = []
    for seed in range(2):
        tx = make(jax.random.key(seed), 0.3)
        state = tx.init(grads)
        for _ in range(2):
            updates, state = tx.update(grads, state)
            draws += [updates["u"], updates["v"]]
    correlations_8x8 = np.corrcoef(np.stack(draws))
    # Standard error 1/7: a repeated draw has correlation 1, whatever the decay.
    assert np.abs(correlations_8x8 - np.eye(8)).max() < 0.6


@every_noise
def test_zero_noise_changes_no_bit(make):
    tx = make(KEY, 0.0)
    grads = {"x": jnp.array([0.1, -3e-30, 0.0, 7e5])}
    assert_equal(jax.jit(functools.partial(run, tx))(grads)[0], grads)

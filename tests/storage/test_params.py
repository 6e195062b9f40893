"""Tests that saved parameters are loaded unchanged, or a clear error is raised."""

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from noisegen import storage

PARAMS = {"a": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": [np.ones((), np.float32)]}


def test_saved_parameters_are_loaded_unchanged(tmp_path):
    half = PARAMS | {"c": jnp.full(3, 1.5, jnp.bfloat16)}
    storage.save_params(tmp_path, "9f", half)
    like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, half))
    found = storage.load_params(tmp_path, "9f", like)
    assert jax.tree.structure(found) == jax.tree.structure(half)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(half), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def equinox_params(key):
    return equinox.filter(equinox.nn.MLP(4, 2, 8, 2, key=key), equinox.is_inexact_array)


def haiku_params(key):
    return haiku.transform(lambda x: haiku.nets.MLP([8, 2])(x)).init(key, jnp.ones((1, 4)))


def linen_params(key):
    kernel_init = linen.with_partitioning(linen.initializers.lecun_normal(), ("a", "b"))
    return linen.Dense(3, kernel_init=kernel_init).init(key, jnp.ones((1, 4)))["params"]


@pytest.mark.parametrize("make", [equinox_params, haiku_params, linen_params])
def test_parameters_of_every_library_are_kept(tmp_path, make):
    params = make(jax.random.key(0))
    storage.save_params(tmp_path, "9f", params)
    found = storage.load_params(tmp_path, "9f", jax.eval_shape(make, jax.random.key(0)))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_parameters_of_another_network_are_refused(tmp_path):
    storage.save_params(tmp_path, "9f", PARAMS)
    with pytest.raises(ValueError, match=r"network.*\['a'\]\['w'\].*\(2, 3\).*\(3, 3\)"):
        storage.load_params(tmp_path, "9f", PARAMS | {"a": {"w": np.ones((3, 3), np.float32)}})
    with pytest.raises(ValueError, match="network.*more"):
        storage.load_params(tmp_path, "9f", PARAMS | {"more": np.ones(2)})


def test_missing_and_damaged_files_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="--keep_params"):
        storage.load_params(tmp_path, "9f", PARAMS)
    assert storage.without_params(tmp_path, ["9f"]) == ["9f"]
    storage.save_params(tmp_path, "9f", PARAMS)
    assert storage.without_params(tmp_path, ["9f"]) == []
    path = tmp_path / "params" / "9f.npz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            storage.load_params(tmp_path, "9f", PARAMS)


def test_files_with_code_are_refused(tmp_path):
    (tmp_path / "params").mkdir()
    np.savez(tmp_path / "params" / "9f.npz", w=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        storage.load_params(tmp_path, "9f", {"w": np.ones(1)})


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def zero(content, at):
    return content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :]


def cut(content, at):
    return content[:at]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, zero, cut])
@pytest.mark.parametrize("with_checksum", [True, False])
def test_a_changed_byte_never_changes_the_parameters(tmp_path, damage, with_checksum):
    storage.save_params(tmp_path, "9f", PARAMS)
    path = tmp_path / "params" / "9f.npz"
    if not with_checksum:  # As older versions wrote it.
        names = {jax.tree_util.keystr(at): leaf for at, leaf in jax.tree.leaves_with_path(PARAMS)}
        np.savez(path, **names)
    whole = path.read_bytes()
    detected = 0
    for at in range(len(whole)):
        path.write_bytes(damage(whole, at))
        try:
            found = storage.load_params(tmp_path, "9f", PARAMS)
        except ValueError as error:
            assert str(path) in str(error)
            detected += 1
            continue
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(PARAMS), strict=True):
            np.testing.assert_array_equal(a, b)
    # Changes elsewhere are to dates and other metadata of the archive.
    assert detected > 0.5 * len(whole)


def test_exchanged_files_of_two_runs_are_detected(tmp_path):
    for name in ("9f", "a0"):
        storage.save_params(tmp_path, name, PARAMS)
    paths = [tmp_path / "params" / f"{name}.npz" for name in ("9f", "a0")]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    with pytest.raises(ValueError, match="9f.npz .*a0.*--keep_params"):
        storage.load_params(tmp_path, "9f", PARAMS)
    with pytest.warns(UserWarning, match="9f.npz|a0.npz"):
        assert storage.damaged_params(tmp_path, ["9f", "a0", "b1"]) == ["9f", "a0"]


def test_only_damaged_parameters_are_reported(tmp_path):
    for name in ("9f", "a0"):
        storage.save_params(tmp_path, name, PARAMS)
    path = tmp_path / "params" / "a0.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="a0.npz is damaged") as warned:
        assert storage.damaged_params(tmp_path, ["9f", "a0", "b1"]) == ["a0"]
    assert len(warned) == 1


def test_parameters_of_an_older_version_are_loaded(tmp_path):
    (tmp_path / "params").mkdir()
    names = {jax.tree_util.keystr(at): leaf for at, leaf in jax.tree.leaves_with_path(PARAMS)}
    np.savez(tmp_path / "params" / "9f.npz", **names)
    found = storage.load_params(tmp_path, "9f", PARAMS)
    np.testing.assert_array_equal(found["a"]["w"], PARAMS["a"]["w"])
    assert storage.damaged_params(tmp_path, ["9f"]) == []

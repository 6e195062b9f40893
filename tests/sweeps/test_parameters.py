"""Parameters on disk: what was saved comes back, or a clear error does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from noisegen import sweeps

PARAMS = {"a": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": [np.ones((), np.float32)]}


def test_parameters_come_back(tmp_path):
    half = PARAMS | {"c": jnp.full(3, 1.5, jnp.bfloat16)}
    sweeps.save_params(tmp_path, "9f", half)
    like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, half))
    found = sweeps.load_params(tmp_path, "9f", like)
    assert jax.tree.structure(found) == jax.tree.structure(half)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(half), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_another_network_is_refused(tmp_path):
    sweeps.save_params(tmp_path, "9f", PARAMS)
    with pytest.raises(ValueError, match=r"another network: its \['a'\]\['w'\] has shape \(2, 3\)"):
        sweeps.load_params(tmp_path, "9f", PARAMS | {"a": {"w": np.ones((3, 3), np.float32)}})
    with pytest.raises(ValueError, match="another network"):
        sweeps.load_params(tmp_path, "9f", PARAMS | {"more": np.ones(2)})


def test_missing_and_damaged_files_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="--keep_params"):
        sweeps.load_params(tmp_path, "9f", PARAMS)
    assert sweeps.without_params(tmp_path, ["9f"]) == ["9f"]
    sweeps.save_params(tmp_path, "9f", PARAMS)
    assert sweeps.without_params(tmp_path, ["9f"]) == []
    path = tmp_path / "params" / "9f.npz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            sweeps.load_params(tmp_path, "9f", PARAMS)


def test_nothing_in_a_file_is_executed(tmp_path):
    (tmp_path / "params").mkdir()
    np.savez(tmp_path / "params" / "9f.npz", w=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        sweeps.load_params(tmp_path, "9f", {"w": np.ones(1)})

"""Saves and loads parameters of finished runs, for measurements between and around solutions.

Each run has one file, `params/<run_id>.npz`, with plain arrays by name, the run_id and a checksum.
Nothing in the file is executed when it is read.

>>> import tempfile
>>> import numpy as np
>>> from noisegen import storage
>>> workdir = tempfile.mkdtemp()
>>> storage.save_params(workdir, "9f", {"w": np.ones(2)})
>>> storage.load_params(workdir, "9f", like={"w": np.zeros(2)})
{'w': array([1., 1.])}
"""

import io
import os
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from noisegen.storage import checksums
from noisegen.storage.workdir import write_file

PyTree = Any
# Further entries of a file. They cannot clash with arrays, whose names begin with [ or a dot.
_RUN_ID = "run_id"
_CHECKSUM = "crc32"
_REMEDY = "rerun the sweep command with --keep_params, and its run is trained again."


def save_params(workdir: str | os.PathLike, run_id: str, params: PyTree) -> None:
    """Writes the parameters of a run. The file is written completely or not at all.

    Raises:
      OSError: If the directory cannot be written to.
    """
    path = _path(workdir, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {_name(key_path): _wide(leaf) for key_path, leaf in jax.tree.leaves_with_path(params)}
    arrays[_RUN_ID] = np.array(run_id)
    # Last, so that it covers the run_id too: a file under another run's name is detected.
    arrays[_CHECKSUM] = np.uint32(_checksum(arrays))
    # In memory first, because `write_file` replaces a whole file or none.
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_file(path, buffer.getvalue())


def load_params(workdir: str | os.PathLike, run_id: str, like: PyTree) -> PyTree:
    """Reads the parameters of a run.

    Args:
      workdir: The directory of the sweep.
      run_id: Id of the run.
      like: A pytree with the structure, shapes and dtypes of the parameters, such as
        `jax.eval_shape(task.init, key)[0]`.

    Raises:
      FileNotFoundError: If no parameters of the run were kept.
      ValueError: If the file is damaged, of another run or of another network.
    """
    path = _path(workdir, run_id)
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} has no parameters of the run {run_id}; train the sweep with --keep_params"
            " in a new workdir."
        )
    arrays = _read(path, run_id)
    _check_shapes(path, arrays, like)

    def as_saved(key_path: tuple, leaf: Any) -> np.ndarray:
        # Undoes `_wide` without loss.
        return arrays[_name(key_path)].astype(leaf.dtype)

    return jax.tree.map_with_path(as_saved, like)


def without_params(workdir: str | os.PathLike, run_ids: Iterable[str]) -> list[str]:
    """Returns the given run_ids that have no kept parameters."""
    return [name for name in run_ids if not _path(workdir, name).is_file()]


def damaged_params(workdir: str | os.PathLike, run_ids: Iterable[str]) -> list[str]:
    """Returns the runs whose kept parameters are damaged, and warns of each.

    Reads every kept file in full.

    Args:
      workdir: The directory of the sweep.
      run_ids: The runs. Runs without a kept file are ignored.

    Returns:
      The run_ids of the damaged files, in the order of `run_ids`.
    """
    damaged = []
    for name in run_ids:
        path = _path(workdir, name)
        if not path.is_file():
            continue
        try:
            _read(path, name)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
            damaged.append(name)
    return damaged


def _read(path: pathlib.Path, run_id: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name, after checking that they were written for the run."""
    content = path.read_bytes()
    try:
        # Without pickles, which could execute code.
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        checksum = arrays.pop(_CHECKSUM, None)  # Older versions wrote none.
        if checksum is not None and checksum != _checksum(arrays):
            raise ValueError("its checksum does not match")
    except Exception as error:  # A damaged archive fails in many ways.
        raise ValueError(f"{path} is damaged ({error}); {_REMEDY}") from error
    written_for = str(arrays.pop(_RUN_ID, run_id))  # Older versions did not write it.
    if written_for != run_id:
        raise ValueError(f"{path} is of the run {written_for}; {_REMEDY}")
    return arrays


def _check_shapes(path: pathlib.Path, arrays: dict[str, np.ndarray], like: PyTree) -> None:
    """Checks that a file has exactly the arrays of a network, in its shapes."""
    wanted = {_name(key_path): leaf.shape for key_path, leaf in jax.tree.leaves_with_path(like)}
    found = {name: array.shape for name, array in arrays.items()}
    # The names of both, as arrays may be missing or superfluous.
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{path} is of another network: its {name} has shape"
                f" {found.get(name, 'missing')}, not {wanted.get(name, 'missing')}; give"
                " like=jax.eval_shape(task.init, key)[0] of the task that trained it."
            )


def _wide(leaf: Any) -> np.ndarray:
    """Returns a leaf as an array of at least 32 bits, since NumPy's files know no bfloat16."""
    return np.asarray(leaf, np.promote_types(leaf.dtype, np.float32))  # Exact.


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    """Returns the checksum of arrays and their names."""
    return checksums.of_json({name: checksums.of_array(array) for name, array in arrays.items()})


def _path(workdir: str | os.PathLike, run_id: str) -> pathlib.Path:
    """Returns the file of a run."""
    return pathlib.Path(workdir) / "params" / f"{run_id}.npz"


def _name(key_path: tuple) -> str:
    """Returns the name of a leaf, such as "['dense']['kernel']"."""
    return jax.tree_util.keystr(key_path)

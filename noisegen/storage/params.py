"""Parameters of finished runs on disk, for measurements between and around solutions.

Each run has one file, `params/<run_id>.npz`, with plain arrays by name, the run_id and a checksum.
Nothing in it is executed when it is read.

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
_RUN_ID, _CHECKSUM = "run_id", "crc32"  # beside the arrays, whose names begin with [ or .
_REMEDY = "give the sweep command again, with --keep_params, and its run is trained again."


def save_params(workdir: str | os.PathLike, run_id: str, params: PyTree) -> None:
    """Writes the parameters of a run, all at once or not at all.

    Raises:
      OSError: If the directory cannot be written to.
    """
    path = _path(workdir, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    # NumPy's files know no bfloat16; float32 holds it exactly.
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.promote_types(leaf.dtype, "f4")), params)
    arrays = {_name(at): leaf for at, leaf in jax.tree.leaves_with_path(wide)}
    arrays[_RUN_ID] = np.array(run_id)
    np.savez(buffer, **arrays, **{_CHECKSUM: np.uint32(_checksum(arrays))})
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
            f"{workdir} has no parameters of the run {run_id}: a sweep keeps them if it is trained "
            "with --keep_params; train it so in a new workdir."
        )
    arrays = _read(path, run_id)
    wanted = {_name(at): leaf.shape for at, leaf in jax.tree.leaves_with_path(like)}
    found = {name: array.shape for name, array in arrays.items()}
    if wanted != found:
        odd = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))[0]
        raise ValueError(
            f"{path} is of another network: its {odd} has shape {found.get(odd, 'missing')}, not "
            f"{wanted.get(odd, 'missing')}; give like=jax.eval_shape(task.init, key)[0] of the "
            "task that trained it."
        )
    return jax.tree.map_with_path(lambda at, leaf: arrays[_name(at)].astype(leaf.dtype), like)


def without_params(workdir: str | os.PathLike, run_ids: Iterable[str]) -> list[str]:
    """Returns the run_ids whose parameters were not kept."""
    return [name for name in run_ids if not _path(workdir, name).is_file()]


def damaged_params(workdir: str | os.PathLike, run_ids: Iterable[str]) -> list[str]:
    """Returns the runs whose kept parameters are damaged, and warns of each.

    Reads every kept file in full.

    Args:
      workdir: The directory of the sweep.
      run_ids: The runs; those without a kept file are not named.

    Returns:
      The run_ids of the damaged files, in the order of `run_ids`.
    """
    found = []
    for name in run_ids:
        try:
            if _path(workdir, name).is_file():
                _read(_path(workdir, name), name)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
            found.append(name)
    return found


def _read(path, run_id):
    """Returns the arrays of a file by name, checked to be those written for the run."""
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        checksum = arrays.pop(_CHECKSUM, None)  # older versions wrote none
        if checksum is not None and checksum != _checksum(arrays):
            raise ValueError("its checksum is another")
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{path} is damaged ({error}); {_REMEDY}") from error
    if (found := str(arrays.pop(_RUN_ID, run_id))) != run_id:
        raise ValueError(f"{path} is of the run {found}; {_REMEDY}")
    return arrays


def _checksum(arrays):
    return checksums.of_json({name: checksums.of_array(array) for name, array in arrays.items()})


def _path(workdir, run_id):
    return pathlib.Path(workdir) / "params" / f"{run_id}.npz"


def _name(path):
    return jax.tree_util.keystr(path)

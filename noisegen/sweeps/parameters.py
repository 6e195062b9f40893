"""Parameters of finished runs on disk, for what is measured between and around solutions.

One file a run, `params/<run_id>.npz`: plain arrays by name, in which nothing can be executed.

>>> import tempfile
>>> import numpy as np
>>> from noisegen import sweeps
>>> workdir = tempfile.mkdtemp()
>>> sweeps.save_params(workdir, "9f", {"w": np.ones(2)})
>>> sweeps.load_params(workdir, "9f", like={"w": np.zeros(2)})
{'w': array([1., 1.])}
"""

import io
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from noisegen.sweeps.records import write_file

PyTree = Any


def save_params(workdir: str | os.PathLike, run_id: str, params: PyTree) -> None:
    """Writes the parameters of a run, all at once or not at all.

    Raises:
      OSError: the directory cannot be written to.
    """
    path = _path(workdir, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    # NumPy's files know no bfloat16; float32 holds it exactly.
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.promote_types(leaf.dtype, "f4")), params)
    np.savez(buffer, **{_name(at): leaf for at, leaf in jax.tree.leaves_with_path(wide)})
    write_file(path, buffer.getvalue())


def load_params(workdir: str | os.PathLike, run_id: str, like: PyTree) -> PyTree:
    """Reads the parameters of a run.

    Args:
      workdir: directory of the sweep.
      run_id: of the run.
      like: a pytree of the network's structure, shapes and dtypes, such as
        `jax.eval_shape(task.init, key)[0]`.

    Raises:
      FileNotFoundError: none were kept.
      ValueError: the file is damaged, or of another network.
    """
    path = _path(workdir, run_id)
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} has no parameters of the run {run_id}: they are kept where a sweep trains "
            "with --keep_params, from then on; train it in a new workdir."
        )
    try:
        # Opened here, since NumPy leaves a file open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and its run's record.") from error
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
    """Those of some runs whose parameters were not kept."""
    return [name for name in run_ids if not _path(workdir, name).is_file()]


def _path(workdir, run_id):
    return pathlib.Path(workdir) / "params" / f"{run_id}.npz"


def _name(path):
    return jax.tree_util.keystr(path)

"""Partitions the parameters of a run over the devices of the mesh's model axis.

A task has a `jax.sharding.PartitionSpec` for each parameter. It says which axes of the parameter
the devices divide among them. The compiler divides the computations accordingly.
"""

from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec

from noisegen.training.data_order import RunInputs
from noisegen.training.lane_state import LANE_SPEC, Lane
from noisegen.training.task import (
    PyTree,
    Task,
    annotated_init,
    is_annotated,
    make_key,
    takes_hparams,
    without_annotations,
)

# Fields of a lane whose arrays are shared as the parameters are.
_LIKE_PARAMS = ("params", "opt_state", "gradients", "groups")


class ParamPartition(NamedTuple):
    """How devices share a parameter."""

    shape: tuple[int, ...]
    spec: PartitionSpec


ParamPartitions = dict[tuple, ParamPartition]  # By the path of the parameter.


def param_partitions(
    task: Task, model_devices: int, inputs: RunInputs | None = None
) -> ParamPartitions:
    """Returns how the devices of the model axis share the parameters of a run.

    Args:
      task: The task.
      model_devices: Devices of the model axis.
      inputs: Inputs of some lanes, needed only if `init` takes hyperparameters.

    Raises:
      ValueError: If an annotation does not fit its parameter or the mesh, or there is none.
    """
    annotated = _annotated_params(task, inputs)
    partition = _annotations if task.partition is None else task.partition
    if not callable(partition):
        raise ValueError(
            f"partition of task {task.name!r} must be a function, but it is {partition!r:.80}: "
            "give a function from the parameters to their specs."
        )
    specs = partition(annotated)
    # Also where the parameters have None, which JAX counts as no leaf.
    specs = jax.tree.map(
        lambda spec: PartitionSpec() if spec is None else spec, specs, is_leaf=lambda x: x is None
    )
    try:
        specs = jax.tree.broadcast(specs, annotated)
    except ValueError as error:
        raise ValueError(
            f"partition of task {task.name!r} must return a tree like that of the parameters, with "
            f"a PartitionSpec for each, but it returned {jax.tree.structure(specs)!s:.200}."
        ) from error
    params = jax.tree.leaves_with_path(without_annotations(annotated))
    partitions = {}
    for (path, param), spec in zip(params, jax.tree.leaves(specs), strict=True):
        _check(task, jax.tree_util.keystr(path), param.shape, spec, model_devices)
        partitions[path] = ParamPartition(param.shape, spec)
    if not any(any(found.spec) for found in partitions.values()):
        raise ValueError(
            f"Devices cannot share the parameters of task {task.name!r}, because none is annotated "
            'with the axis "model": use with_partitioning of Flax, or give the task a partition, '
            f"or leave model_devices={model_devices} at 1."
        )
    return partitions


def lane_specs(partitions: ParamPartitions, lanes: Lane) -> Lane:
    """Returns the partition specs of lanes, over all axes of the mesh.

    An array of the optimizer's state is shared as a parameter is if its path ends in that of the
    parameter, and its shape is the same. Other arrays are copied to all devices of the model axis.

    Args:
      partitions: How devices share the parameters.
      lanes: The lanes, of which only shapes are read.
    """

    def specs(field: str) -> PyTree:
        lead = getattr(LANE_SPEC, field)
        if field not in _LIKE_PARAMS:
            return lead

        def spec(path: tuple, leaf: jax.Array) -> PartitionSpec:
            return PartitionSpec(*lead, *_spec(partitions, path, leaf.shape[len(lead) :]))

        return jax.tree_util.tree_map_with_path(spec, getattr(lanes, field))

    return Lane(**{field: specs(field) for field in Lane._fields})


def _spec(partitions: ParamPartitions, path: tuple, shape: tuple[int, ...]) -> PartitionSpec:
    """Returns the spec of the parameter whose path an array's path ends in."""
    # The longest path first, as one may end in another.
    for start in range(len(path) + 1):
        found = partitions.get(path[start:])
        if found is not None and found.shape == shape:
            return found.spec
    return PartitionSpec()


def is_boxed(task: Task, inputs: RunInputs | None = None) -> bool:
    """Returns whether parameters are annotated in the way of Flax Linen."""
    params = jax.tree.leaves(_annotated_params(task, inputs), is_leaf=is_annotated)
    return any(map(is_annotated, params))


def _annotated_params(task: Task, inputs: RunInputs | None) -> PyTree:
    """Returns the shapes and dtypes of the parameters, as `init` returns them."""
    if not takes_hparams(task.init):
        return annotated_init(task)[0]
    first = {name: values[0] for name, values in inputs.hparams.items()}
    return jax.eval_shape(lambda hparams: task.init(make_key(0), hparams=hparams), first)[0]


def _annotations(params: PyTree) -> PyTree:
    """Returns the specs that the parameters are annotated with."""
    return jax.tree.map(
        lambda node: node.get_partition_spec() if is_annotated(node) else PartitionSpec(),
        params,
        is_leaf=is_annotated,
    )


def _check(
    task: Task, name: str, shape: tuple[int, ...], spec: PartitionSpec, model_devices: int
) -> None:
    """Checks that devices can share a parameter as its spec says."""
    where = f"Parameter {name} of task {task.name!r}, of shape {shape}, is annotated with {spec}"
    if not isinstance(spec, PartitionSpec):
        raise ValueError(f"{where}, which must be a PartitionSpec or None.")
    if len(spec) > len(shape):
        raise ValueError(f"{where}, which has more axes than it.")
    num_shared = sum(names not in (None, ()) for names in spec)
    for size, names in zip(shape, spec, strict=False):
        if names in (None, ()):
            continue
        if names not in ("model", ("model",)):
            raise ValueError(
                f'{where}, but the only axis for parameters is "model": rename {names!r}, or '
                "translate the names in the task's partition."
            )
        if num_shared > 1:
            raise ValueError(f'{where}, but devices can share one axis only: name "model" once.')
        if size % model_devices:
            raise ValueError(
                f"{where}, and {size} is not a multiple of model_devices={model_devices}."
            )

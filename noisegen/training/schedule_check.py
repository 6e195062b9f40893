"""Explains the error of an optax schedule that is given the traced numbers of a run."""

import itertools
import traceback

import jax

from noisegen import schedules

# What to use in place of an optax schedule that cannot be traced.
_REMEDIES = {
    "piecewise_constant_schedule": (
        "noisegen.piecewise_constant_schedule, which also takes pairs (boundary, scale)"
    ),
    "piecewise_interpolate_schedule": (
        "noisegen.join_schedules of noisegen.linear_schedule or noisegen.cosine_decay_schedule"
    ),
    "sgdr_schedule": "noisegen.join_schedules of noisegen.warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule": (
        "noisegen.join_schedules of noisegen.linear_schedule and noisegen.exponential_decay"
    ),
}
# These can be traced, and only call other schedules.
_TRACEABLE = {"constant_schedule", "join_schedules"}


def needs_value(error: Exception) -> bool:
    """Returns whether an error says that the value of a traced number was needed."""
    # Some errors come from Python and not from JAX: a traced key of a dictionary raises "unhashable
    # type: 'DynamicJaxprTracer'".
    is_python = isinstance(error, TypeError) and "Tracer" in str(error)
    return is_python or isinstance(error, jax.errors.JAXTypeError)


def explain_schedule(error: Exception) -> str | None:
    """Returns which optax schedule needed the value of a traced number, and what to use instead.

    Args:
      error: Error that was raised while tracing.

    Returns:
      A part of a sentence, "calls optax.cosine_decay_schedule, which ...", or None if the error
      has another cause.
    """
    if not needs_value(error):
        return None
    name = _failing_schedule(error)
    if name is None:
        return None
    remedy = _REMEDIES.get(name, f"noisegen.{name}, which has the same arguments")
    return (
        f"calls optax.{name}, which needs the value of a number, but the numbers of runs are "
        f"traced: use {remedy}."
    )


def _failing_schedule(error: Exception) -> str | None:
    """Returns the name of the optax schedule that raised an error, or None if another did."""
    frames = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_qualname.partition(".")[0])
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    # JAX's own frames are the innermost. If the frame that called them is of the user's function,
    # the error is the user's, even if a schedule of optax called that function.
    others = [frame for frame in frames if frame[0].partition(".")[0] not in ("jax", "jaxlib")]
    inner = itertools.takewhile(lambda frame: frame[0].startswith("optax."), reversed(others))
    # Schedules of optax call each other, and the user called the outermost.
    for module, name in reversed(list(inner)):
        is_schedule = module.startswith("optax.schedules.") and name not in _TRACEABLE
        if is_schedule and (name in _REMEDIES or name in schedules.__all__):
            return name
    return None

"""noisegen: gradient noise, temperature and batch size, in parts that chain with optax.

This import brings in jax, optax and numpy only. What needs more (``noisegen.models``, ``.data``,
``.sweeps``, ...) is imported by its own name.

>>> import jax, noisegen, optax
>>> tx = optax.chain(
...     noisegen.add_gradient_noise(noisegen.power_decay(0.3, gamma=0.55), jax.random.key(0)),
...     optax.sgd(0.1, momentum=0.5),
... )
"""

from noisegen import schedules, transforms
from noisegen.schedules import *  # noqa: F403
from noisegen.transforms import *  # noqa: F403

__version__ = "0.1.0"
__all__ = ["schedules", "transforms", *schedules.__all__, *transforms.__all__]

"""noisegen: gradient noise, temperature and batch size as transforms that chain with optax.

This import loads jax, optax and numpy only. Other packages (``noisegen.models``, ``noisegen.data``,
``noisegen.sweeps``, ...) are imported by their own names.

>>> import jax, noisegen, optax
>>> stddev = noisegen.power_decay_schedule(0.3, gamma=0.55)
>>> noise = noisegen.add_gradient_noise(stddev, jax.random.key(0))
>>> tx = optax.chain(noise, optax.sgd(0.1, momentum=0.5))
"""

from noisegen import schedules, transforms
from noisegen.schedules import *  # noqa: F403
from noisegen.transforms import *  # noqa: F403

__version__ = "0.1.0"
__all__ = ["schedules", "transforms", *schedules.__all__, *transforms.__all__]

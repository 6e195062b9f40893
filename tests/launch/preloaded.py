"""What the commands import, for processes that are forked from one that has it already.

The modules of `launch` are left out: they define flags, as each command does for itself.
"""

import matplotlib.figure  # noqa: F401
import ml_collections  # noqa: F401
import orbax.checkpoint  # noqa: F401
import sklearn.datasets  # noqa: F401
import tensorflow_datasets  # noqa: F401

import noisegen.data
import noisegen.models
import noisegen.reports
import noisegen.storage
import noisegen.sweeps.experiment
import noisegen.sweeps.worker
import noisegen.tasks
import noisegen.training  # noqa: F401

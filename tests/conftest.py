"""Every test runs on eight CPU devices, with JAX's own checks switched on.

Little is spent on optimizing programs that run for milliseconds, but for one test that asks for
all; the commands that tests start optimize as their users' do.
"""

import os
from unittest import mock

import hypothesis
import jax
import pytest

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
if jax.__version_info__ < (0, 11):  # which ends with an error at flags that it does not know
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    with mock.patch.dict(os.environ, XLA_FLAGS=flags):
        jax.devices()  # reads the flags

hypothesis.settings.register_profile(
    "derandomized", derandomize=True, deadline=None, max_examples=50, database=None
)
hypothesis.settings.load_profile("derandomized")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Tests that train equal programs in pools of their own compile them once."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)

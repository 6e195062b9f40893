"""Every test runs on eight CPU devices, with JAX's own checks switched on."""

import hypothesis
import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

hypothesis.settings.register_profile(
    "derandomized", derandomize=True, deadline=None, max_examples=50, database=None
)
hypothesis.settings.load_profile("derandomized")

"""All tests run on 8 fake CPU devices, with the array annotations of hen_jax checked."""

import jax
from jaxtyping import install_import_hook

CHECKED = ["core", "models", "objectives", "adapters", "sampling", "steps", "meta"]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
install_import_hook([f"hen_jax.{floor}" for floor in CHECKED], "beartype.beartype")

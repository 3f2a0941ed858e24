"""All tests run on 8 fake CPU devices, with the array annotations of hen_jax checked."""

import os

# Tests compile many small programs and run each once: the compiler's effort is most of their time.
# Memory and speed are measured in benchmarks/, which leave the compiler as it is.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jax
from jaxtyping import install_import_hook

CHECKED = ["core", "models", "objectives", "adapters", "sampling", "steps", "meta"]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
install_import_hook([f"hen_jax.{floor}" for floor in CHECKED], "beartype.beartype")

"""What a run does to its process before the first computation."""

import os
from pathlib import Path

import jax

from hen_jax.training.clusters import find_cluster
from hen_jax.training.processes import is_primary, join


def start(compilation_cache: Path) -> None:
    """Joins the other processes of the run, if there are any, and says what it will compute on.

    Compiled programs are kept in `compilation_cache`: a second run of the same shapes, or one that
    goes on, compiles in a fraction of the time. `JAX_COMPILATION_CACHE_DIR` names another folder.

    Raises:
      InputError: the environment describes other processes, but not fully.
    """
    cluster = find_cluster(os.environ)
    if cluster is not None:
        join(cluster)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(compilation_cache))
    # Small programs too: a start compiles some thirty of them, each in far more than it is read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if not is_primary():
        return
    devices = jax.devices()
    print(
        f"jax {jax.__version__}, {len(devices)} x {devices[0].device_kind} "
        f"({jax.default_backend()}), {jax.process_count()} process(es)"
    )

"""What a run does to its process before the first computation."""

from pathlib import Path

import jax


def start(compilation_cache: Path) -> None:
    """Keeps compiled programs in `compilation_cache`, and prints what the run will compute on.

    A second run of the same shapes then compiles in a fraction of the time.
    """
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    devices = jax.devices()
    print(
        f"jax {jax.__version__}, {len(devices)} x {devices[0].device_kind} "
        f"({jax.default_backend()}), process {jax.process_index() + 1} of {jax.process_count()}"
    )

"""All tests run on 8 fake CPU devices, with the array annotations of hen_jax checked."""

import os
from importlib.metadata import version

# Tests compile many small programs and run each once: the compiler's effort is most of their time,
# of which its fusion emitters alone take half. Memory and speed are measured in benchmarks/, which
# leave the compiler as it is.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # A later XLA does not know it, and ends at what it does not know.
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10.")
)

import jax
import pytest
from jaxtyping import install_import_hook

CHECKED = ["core", "models", "objectives", "adapters", "sampling", "steps", "curricula", "meta"]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
install_import_hook([f"hen_jax.{floor}" for floor in CHECKED], "beartype.beartype")


def pytest_configure():
    """What names no mesh runs on one device of the eight: sharded programs take several times as
    long to compile, and tests of sharding name theirs."""
    from hen_jax.core import mesh

    over_all = mesh.make_mesh

    def one_unless_named(config, devices=None):
        if devices is None and config == mesh.MeshConfig():
            devices = jax.devices()[:1]
        return over_all(config, devices)

    mesh.make_mesh = one_unless_named  # before a module takes it by name


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Models, rendered examples and programs that tests make are not for the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _programs(request):
    """Each program is compiled once, by whichever worker or process of a test comes first.

    They stay for the next `make test` (`.pytest_cache/d/xla`; `pytest --cache-clear` empties it): a
    change of the code makes another program, with another key.
    """
    folder = str(request.config.cache.mkdir("xla"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)  # for processes that a test starts
        jax.config.update("jax_compilation_cache_dir", folder)
        # Of the many that take less, writing costs more than compiling.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        yield


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A folder with the random model of `hen import tiny`; to be read, and not changed."""
    from hen_jax.runs.tiny_model import write_tiny_model

    folder = tmp_path_factory.mktemp("base") / "tiny"
    write_tiny_model(folder, None)
    return folder


@pytest.fixture(scope="session")
def tiny_finished(tiny_base, tmp_path_factory):
    """The work directory of a run of a few steps on it; to be copied, and not changed."""
    import tiny_run

    workdir = tmp_path_factory.mktemp("finished") / "run"
    tiny_run.run(tiny_base, workdir, epochs=0.1, loop={"checkpoint_every": 2})
    return workdir

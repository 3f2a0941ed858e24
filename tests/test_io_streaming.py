"""What import and export hold in host memory, whatever the size of the checkpoint."""

import dataclasses
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_model

from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import flatten
from hen_jax.io import hf, names, placing, shards
from hen_jax.models.decoder import abstract
from hen_jax.training.placement import parameter_shardings

CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    family="phi3",
    vocab_size=4000,
    width=512,
    layers=12,
    heads=8,
    kv_heads=4,
    head_dim=64,
    mlp_width=1792,
    tied_head=False,
)
LARGEST = 4000 * 512 * 2
MARGIN = 400_000
"""What lists, headers and compilations take; a tenth of the largest tensor."""


@contextmanager
def host_memory(bound: int):
    """Fails where more is held at a time; numpy reports its arrays, jax's own lie elsewhere."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= bound


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """93 MB of random bfloat16, in shards."""
    folder = tmp_path_factory.mktemp("checkpoint")
    rng = np.random.default_rng(0)
    tensors = []
    for fused in names.fused(CONFIG):
        shape = names.fused_shape(fused, CONFIG)
        for name in names.expand(fused, fused.name, CONFIG):

            def fill(out):
                out[...] = rng.standard_normal(out.shape, np.float32)

            tensors.append(shards.Tensor(name, shape, np.dtype(ml_dtypes.bfloat16), fill))
    written = shards.write_shards(folder, tensors, 20_000_000)
    assert written.bytes > 90e6
    return folder


@pytest.mark.parametrize(
    "axes",
    [
        (1, 1),
        pytest.param((2, 1), marks=pytest.mark.slow),
        pytest.param((2, 2), marks=pytest.mark.slow),
    ],  # 90 MB each
)
def test_import_holds_no_tensor_and_export_one(folder, tmp_path, monkeypatch, axes):
    monkeypatch.setattr(placing, "PIECE", 150_000)  # matrices in 2 to 28 pieces
    fsdp, tensor = axes
    mesh = make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor), jax.devices()[: fsdp * tensor])
    shardings = parameter_shardings(abstract(CONFIG), mesh)
    hf.read_params(folder, CONFIG, None, shardings)  # compiled once, outside the measurement
    with host_memory(MARGIN):
        params = jax.block_until_ready(hf.read_params(folder, CONFIG, None, shardings))
    plain = flatten(hf.read_params(folder, CONFIG))
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(np.asarray(leaf), plain[path], err_msg=path)
    shares = 1 if axes == (1, 1) else 2
    if shares == 1:
        hf.write_model(tmp_path / "first", CONFIG, params)  # compiled outside the measurement too
    with host_memory(LARGEST * shares + MARGIN):  # several devices' shares are gathered
        hf.write_model(tmp_path / "out", CONFIG, params, max_shard_bytes=30_000_000)
    before, after = shards.locate_tensors(folder), shards.locate_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, entry in before.items():
        here, there = (
            shards.stored_tensor(name, at, entry.shape).load() for at in (entry, after[name])
        )
        assert here.tobytes() == there.tobytes(), name


def test_from_folder_to_folder_too(folder, tmp_path):
    with host_memory(LARGEST + MARGIN):
        hf.write_model(tmp_path / "out", CONFIG, hf.read_tensors(folder, CONFIG))

"""A reward model on its devices: what it gives documents, packed and in batches."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float
from scipy.special import expit

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh, replicated, rows_over
from hen_jax.core.types import Array, Batch, RowLimits, Tree
from hen_jax.data.comparisons import unshifted
from hen_jax.data.packing import lay_out_row, pack_all, stack_rows
from hen_jax.io import hf, peft_settings
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.models.decoder import merge
from hen_jax.models.heads import document_outputs
from hen_jax.runs.adapted import Adapted, open_adapted
from hen_jax.runs.model import with_score_head
from hen_jax.training.placement import to_devices

ROW = 512
"""Positions of a row, or as many as the longest document has."""


RewardModel = Adapted
"""A model with a score head, on its devices."""


def open_reward(
    folder: Path, adapter: Path | None = None, dtype: Literal["float32", "bfloat16"] = "float32"
) -> RewardModel:
    """A folder with a reward model, or a trunk and an adapter that has its score head.

    Raises:
      InputError: neither.
    """
    config, run = reward_config(folder, adapter), Execution(compute_dtype=dtype, remat="none")
    return open_adapted(folder, adapter, config, make_mesh(MeshConfig()), run)


def reward_config(folder: Path, adapter: Path | None) -> DecoderConfig:
    """The model in a folder, with a score head: its own, or that of an adapter.

    Raises:
      InputError: neither has one.
    """
    stored = hf.read_config(folder)
    if adapter is None and not stored.score_head:
        raise InputError(
            f"{folder} is no reward model (it has no score head); give one, or --adapter with one"
        )
    if adapter is None:
        return stored
    return with_score_head(stored, peft_settings.adapter_labels(adapter))


def score_documents(
    reward: RewardModel, documents: Sequence[np.ndarray], batch_size: int = 8
) -> Float[np.ndarray, "N"]:
    """The score of each document of tokens, in order: packed, of one shape, compiled once.

    Of a rating model the rating in [0, 1], over its outputs where it has several.
    """
    return document_values(reward, documents, batch_size).mean(axis=1)


def document_values(
    reward: RewardModel, documents: Sequence[np.ndarray], batch_size: int = 8
) -> Float[np.ndarray, "N O"]:
    """`score_documents` with every output of the head by itself."""
    outputs = len(reward.opened.config.score_labels)
    if not documents:
        return np.zeros((0, outputs))
    lengths = np.asarray([len(tokens) for tokens in documents])
    longest = int(lengths.max())
    row = max(ROW, -(-longest // 64) * 64)
    rows = pack_all(lengths, row)
    most = int(np.diff(rows.ends, prepend=0).max())
    held, reach = 1 << (most - 1).bit_length(), min(row, -(-longest // 64) * 64)
    run = compiled_scores(reward, held, RowLimits(reach, 0, held))
    size, put = batch_size * rows_over(reward.mesh), to_devices(reward.mesh)
    found = np.zeros((len(documents), outputs))
    for start in range(0, len(rows), size):
        places = [rows[at] if at < len(rows) else [] for at in range(start, start + size)]
        laid = [lay_out_row([unshifted(documents[at]) for at in own], row) for own in places]
        scores = np.asarray(run(reward.params, reward.frozen, put(stack_rows(laid))))
        for own, values in zip(places, scores, strict=True):
            found[own] = values[: len(own)]
    return expit(found) if reward.opened.config.rates else found


def compiled_scores(reward: RewardModel, held: int, reach: RowLimits) -> Any:
    """`scores(params, frozen, batch)`: `[B, held, O]`, those of each row's documents; jitted.

    The same function for the same bounds: a model that is asked again is not compiled again.
    """
    return _program(reward.opened.graphdef, reward.mesh, held, reach)


@functools.cache
def _program(graphdef: nnx.GraphDef, mesh: Mesh, held: int, reach: RowLimits) -> Any:
    def scores(params: Tree, frozen: Tree, batch: Batch) -> Array:
        model = merge(graphdef, params, frozen)
        assert model.score is not None
        hidden = model.hidden(batch.tokens, batch.positions, batch.segments, reach)
        return document_outputs(model.score.outputs(hidden), batch.segments, held)

    return jax.jit(scores, out_shardings=replicated(mesh))

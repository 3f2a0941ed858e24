"""SmolLM2-135M for the study of reward quality: in memory, and what it says of rows, frozen."""

import itertools
import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from quality_rows import WIDTHS, Row, laid_batch, row_key, width_of

from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.types import Array, Batch, Tree
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.models.heads import last_tokens
from hen_jax.objectives.tokens import score_tokens
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import BaseModel, open_model
from hen_jax.text.tokenizer import ChatTokenizer

K = 2
"""Replies of a row."""


class Study(NamedTuple):
    """The model in memory, and where its frozen log-probabilities are kept."""

    words: ChatTokenizer
    model: BaseModel
    lora: LoraConfig
    execution: Execution
    frozen: "Frozen"


def open_study(folder: Path, out: Path, rank: int, dtype: Any) -> Study:
    """Reads the model; `dtype` is what it computes in."""
    lora, execution = LoraConfig(rank, 2.0 * rank), Execution(compute_dtype=dtype, remat="none")
    mesh = make_mesh(MeshConfig())
    model = open_model(folder, mesh, lora=lora, execution=execution, dtype="float32")
    plain = split(abstract(model.config, None, execution)).graphdef
    frozen = Frozen(out / f"frozen-{dtype}.jsonl", plain, model.base)
    return Study(known_tokenizer(folder), model, lora, execution, frozen)


class Frozen:
    """The frozen model's log-probabilities of rows, computed once and kept in a file."""

    def __init__(self, path: Path, graphdef: nnx.GraphDef, base: Tree):
        self.path, self.graphdef, self.base = path, graphdef, base
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, list[float]] = dict(json.loads(line) for line in lines)

    def of(self, rows: Sequence[Row], size: int = 16) -> np.ndarray:
        """`[n, 2]`: of both replies of each row, in nats."""
        missing = {row_key(row): row for row in rows if row_key(row) not in self.known}
        trained, began, tokens = most_trained(missing.values()), time.perf_counter(), 0
        for part, width in batches_by_width(list(missing.values()), size):
            batch = laid_batch(part, width, size)
            found = np.asarray(_frozen(self.base, batch, self.graphdef, trained[width]))
            lines = [
                [row_key(row), values.tolist()] for row, values in zip(part, found, strict=False)
            ]
            with self.path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            self.known |= dict(lines)
            tokens += sum(row.length for row in part)
            speed = tokens / (time.perf_counter() - began)
            print(f"frozen: {len(self.known)} rows known, {speed:.0f} tokens/s", flush=True)
        return np.asarray([self.known[row_key(row)] for row in rows], np.float32)


@partial(jax.jit, static_argnames=("graphdef", "trained"))
def _frozen(base: Tree, batch: Batch, graphdef: nnx.GraphDef, trained: int) -> Array:
    return row_values(graphdef, batch, trained, base)[0]


def row_values(
    graphdef: nnx.GraphDef, batch: Batch, trained: int, *params: Tree
) -> tuple[Float[Array, "B K"], Float[Array, "B K D"]]:
    """Log-probabilities of both replies in nats, and their last states in float32."""
    model = merge(graphdef, *params)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments)
    scores = score_tokens(model.scorer(), hidden, batch.targets, batch.mask, trained, trained)
    own = batch.segments[:, None] == jnp.arange(1, K + 1)[None, :, None]
    last = (own & last_tokens(batch.segments)[:, None]).astype(jnp.float32)
    states = jnp.einsum("bkt,btd->bkd", last, hidden.astype(jnp.float32))
    return (scores.log_probs[:, None] * own).sum(axis=2), states


def batches_by_width(rows: Sequence[Row], size: int) -> Iterable[tuple[list[Row], int]]:
    """Rows of one width together, the shortest first."""
    by_width: dict[int, list[Row]] = {}
    for row in rows:
        by_width.setdefault(width_of(row.length), []).append(row)
    for width, own in sorted(by_width.items()):
        for start in range(0, len(own), size):
            yield own[start : start + size], width


def most_trained(rows: Iterable[Row]) -> dict[int, int]:
    """The most positions that a row of each width trains, rounded up: programs are made for it."""
    found = dict.fromkeys(WIDTHS, 16)
    for row in rows:
        width = width_of(row.length)
        found[width] = max(found[width], -(-row.trained // 16) * 16)
    # An item is as wide as the longest of its rows.
    return dict(zip(WIDTHS, itertools.accumulate(found.values(), max), strict=True))

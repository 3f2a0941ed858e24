"""SmolLM2-135M for the study of reward quality: in memory, and what it says of rows, frozen."""

import dataclasses
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
from quality_rows import WIDTHS, Row, every_item, laid_batch, laid_row, row_key, width_of

from hen_jax.adapters.router import first_layers
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
    """The model in memory, its last layers, and where what the frozen one says is kept."""

    words: ChatTokenizer
    upper: BaseModel  # the layers that train, behind those of `states`
    lora: LoraConfig
    execution: Execution
    frozen: "Frozen"
    states: "States"
    spoken: np.ndarray  # the ids that `upper` has logits of, sorted


def open_study(folder: Path, out: Path, rank: int, dtype: Any, below: int) -> Study:
    """Reads the model; `dtype` is what it computes in, its first `below` layers never train."""
    lora, execution = LoraConfig(rank, 2.0 * rank), Execution(compute_dtype=dtype, remat="none")
    mesh = make_mesh(MeshConfig())
    model = open_model(folder, mesh, lora=lora, execution=execution, dtype="float32")
    plain = split(abstract(model.config, None, execution)).graphdef
    frozen = Frozen(out / f"frozen-{dtype}.jsonl", plain, model.base)
    lower, first = first_layers(model.config, model.base, below)
    reader = split(abstract(lower, None, execution)).graphdef
    states = States(out / f"states-{dtype}-{below}.bin", reader, first)
    words = known_tokenizer(folder)
    spoken = spoken_ids(words)
    upper = last_layers(model, lora, execution, below, spoken)
    return Study(words, upper, lora, execution, frozen, states, spoken)


def last_layers(
    model: BaseModel, lora: LoraConfig, execution: Execution, below: int, spoken: np.ndarray
) -> BaseModel:
    """The model without its first `below` layers and without logits of what nobody says.

    Of a family whose layers are alike and whose head is tied, as SmolLM2.
    """
    layers = model.config.layers - below
    upper = dataclasses.replace(model.config, layers=layers, vocab_size=len(spoken))
    base = model.base | {
        "blocks": jax.tree.map(lambda leaf: leaf[below:], model.base["blocks"]),
        "embed": {"embedding": model.base["embed"]["embedding"][spoken]},
    }
    return model._replace(
        config=upper, base=base, graphdef=split(abstract(upper, lora, execution)).graphdef
    )


def spoken_ids(words: ChatTokenizer) -> np.ndarray:
    """The ids of all replies of a study in either language; softmax is taken over these alone.

    Reading a reply's own ids says nothing of which prompt it is right at.
    """
    rows = [laid_row(item.prompts[0], item.replies, words) for item in every_item()]
    said = [one.targets[one.mask > 0] for row in rows for one in row.documents]
    return np.unique(np.concatenate(said)).astype(np.int32)


def above(study: Study, rows: Sequence[Row], width: int, size: int) -> tuple[Batch, np.ndarray]:
    """A batch for `study.upper`: targets among the spoken ids, and the states below."""
    batch = laid_batch(rows, width, size)
    targets = np.where(batch.mask > 0, np.searchsorted(study.spoken, batch.targets), 0)
    batch = batch._replace(tokens=np.zeros_like(batch.tokens), targets=targets)
    return batch, study.states.of(rows, width, size)


class States:
    """The residual stream of rows behind the frozen layers, computed once and kept in a file.

    `path` has the float32 values, row after row; beside it, a line for each row: its key and the
    number of its positions. A row whose line was not written is computed again.
    """

    def __init__(self, path: Path, graphdef: nnx.GraphDef, leaves: Tree):
        self.path, self.leaves, self.known = path, leaves, dict[str, slice]()
        self.depth = leaves["embed"]["embedding"].shape[1]
        self._read = jax.jit(partial(_residual, graphdef))
        self._names, self._end = path.with_suffix(".jsonl"), 0
        for line in self._names.read_text().splitlines() if self._names.exists() else ():
            self._add(*json.loads(line))

    def _add(self, key: str, length: int) -> None:
        self.known[key] = slice(self._end, self._end + length)
        self._end += length

    def learn(self, rows: Iterable[Row], size: int = 8) -> None:
        """Computes those of the rows that are not known."""
        missing = {row_key(row): row for row in rows if row_key(row) not in self.known}
        began, tokens = time.perf_counter(), 0
        for part, width in batches_by_width(list(missing.values()), size):
            found = np.asarray(self._read(self.leaves, laid_batch(part, width, size)))
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.seek(self._end * self.depth * found.itemsize)
                for row, values in zip(part, found, strict=False):
                    file.write(values[: row.length].tobytes())
            with self._names.open("a") as names:
                for row in part:
                    names.write(json.dumps([row_key(row), row.length]) + "\n")
                    self._add(row_key(row), row.length)
            tokens += sum(row.length for row in part)
            speed = tokens / (time.perf_counter() - began)
            print(f"frozen layers: {len(self.known)} rows, {speed:.0f} tokens/s", flush=True)

    def of(self, rows: Sequence[Row], width: int, size: int) -> Float[np.ndarray, "B T D"]:
        """Of rows laid at a width, zeros behind them and up to `size` rows."""
        kept = np.memmap(self.path, np.float32, "r", shape=(self._end, self.depth))
        found = np.zeros((size, width, self.depth), np.float32)
        for at, row in enumerate(rows):
            if row.documents:
                found[at, : row.length] = kept[self.known[row_key(row)]]
        return found


def _residual(graphdef: nnx.GraphDef, leaves: Tree, batch: Batch) -> Array:
    model = merge(graphdef, leaves)
    return model.residual(batch.tokens, batch.positions, batch.segments).astype(jnp.float32)


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
    graphdef: nnx.GraphDef, batch: Batch, trained: int, *params: Tree, soft: Array | None = None
) -> tuple[Float[Array, "B K"], Float[Array, "B K D"]]:
    """Log-probabilities of both replies in nats, and their last states in float32.

    `soft` is what enters the first of the model's layers, where that is not the tokens' vectors.
    """
    model = merge(graphdef, *params)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments, soft=soft)
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

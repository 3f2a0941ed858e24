"""Trains identifiers, and keeps them in folders: a few hundred rows in seconds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors.numpy import load_file, save_file

from hen_jax.core.errors import InputError
from hen_jax.core.folders import staged_folder
from hen_jax.core.ranges import Range, require_in
from hen_jax.core.records import require_record, verified, write_record
from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Tree
from hen_jax.methods.identifier import (
    Heads,
    IdentifierConfig,
    Pairs,
    Trained,
    encode_pairs,
    graphdef_of,
    initial,
)

IDENTIFIER_KIND = "identifier"
WEIGHTS = "identifier.safetensors"


class LabelledReply(NamedTuple):
    """A reply in its context with the labels that are known of it; the others do not train."""

    context: str
    reply: str
    labels: Mapping[str, str]
    group: str = ""  # what held-out parts keep together


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How an identifier is trained."""

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self):
        require_in("--epochs", self.epochs, Range(1))
        require_in("--batch-size", self.batch_size, Range(1))
        require_in("--learning-rate", self.learning_rate, Range(0, above=True))
        require_in("--seed", self.seed, Range(0, 2**32 - 1))


def heads_of(rows: Sequence[LabelledReply]) -> dict[str, tuple[str, ...]]:
    """The heads that the labels of the rows name, their labels sorted.

    Raises:
      InputError: no label at all, or a head with one label only.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        for head, label in row.labels.items():
            found.setdefault(head, set()).add(label)
    for head, labels in found.items():
        if len(labels) < 2:
            raise InputError(f"head {head!r} has the label {min(labels)!r} alone; give two or more")
    if not found:
        raise InputError("no row has a label; give labels to learn from")
    return {head: tuple(sorted(found[head])) for head in sorted(found)}


def train_identifier(
    rows: Sequence[LabelledReply],
    heads: Heads | None = None,
    config: IdentifierConfig = IdentifierConfig(),
    training: TrainingConfig = TrainingConfig(),
) -> Trained:
    """Cross-entropy of all heads by AdamW; rare labels count as much as frequent ones together.

    Raises:
      InputError: as `heads_of`, or a label that its head does not have.
    """
    heads = heads_of(rows) if heads is None else heads
    pairs = encode_pairs(config, [(row.context, row.reply) for row in rows])
    targets = {head: _targets(rows, head, labels) for head, labels in heads.items()}
    weights = {head: _weights(target, len(heads[head])) for head, target in targets.items()}
    found = initial(config, heads, training.seed)
    batch = min(training.batch_size, len(rows))
    steps = training.epochs * max(1, len(rows) // batch)
    random = np.random.default_rng(training.seed)
    order = np.concatenate(
        [random.permutation(len(rows)) for _ in range(math.ceil(steps * batch / len(rows)))]
    )[: steps * batch].reshape(steps, batch)
    params = _fit(
        graphdef_of(config, heads), found.params, (pairs, targets, weights), order, training
    )
    return found._replace(params=jax.device_get(params))


@partial(jax.jit, static_argnums=(0, 4))
def _fit(
    graphdef: nnx.GraphDef,
    params: Tree,
    data: tuple[Pairs, Mapping[str, jax.Array], Mapping[str, jax.Array]],
    order: jax.Array,
    training: TrainingConfig,
) -> Tree:
    schedule = optax.cosine_decay_schedule(training.learning_rate, len(order))
    optimizer = optax.adamw(schedule, weight_decay=training.weight_decay)

    def loss(params: Tree, rows: jax.Array) -> jax.Array:
        pairs, targets, weights = jax.tree.map(lambda x: jnp.asarray(x)[rows], data)
        logits = nnx.merge(graphdef, params)(pairs)
        total = jnp.zeros(())
        for head, found in logits.items():
            each = optax.softmax_cross_entropy_with_integer_labels(found, targets[head])
            total += (each * weights[head]).sum() / jnp.maximum(weights[head].sum(), 1e-6)
        return total

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), order)
    return params


def save_identifier(folder: Path, found: Trained, about: Mapping[str, object]) -> None:
    """Writes the folder; one that is there is replaced only if it is an identifier of ours.

    Raises:
      InputError: something else is there.
    """
    with staged_folder(folder, IDENTIFIER_KIND) as staged:
        leaves = {path: np.ascontiguousarray(x) for path, x in flatten(found.params).items()}
        save_file(leaves, staged / WEIGHTS)
        told = {"config": dataclasses.asdict(found.config), "heads": found.heads, **about}
        write_record(staged, IDENTIFIER_KIND, told)


def load_identifier(folder: Path) -> Trained:
    """The identifier in a folder.

    Raises:
      InputError: no such folder, nothing of ours in it, or files that are not as written.
    """
    sizes = {field.name: int for field in dataclasses.fields(IdentifierConfig)}
    record = require_record(folder, IDENTIFIER_KIND, {"heads": {...: [str]}, "config": sizes})
    heads = {name: tuple(labels) for name, labels in record["heads"].items()}
    with verified(folder):
        leaves = load_file(folder / WEIGHTS)
    return Trained(
        IdentifierConfig(**{name: record["config"][name] for name in sizes}),
        heads,
        unflatten(leaves),
    )


def _targets(rows: Sequence[LabelledReply], head: str, labels: Sequence[str]) -> np.ndarray:
    """The place of each row's label; -1 where it has none."""
    for row in rows:
        if row.labels.get(head, labels[0]) not in labels:
            raise InputError(f"{head}: {row.labels[head]!r}; allowed: {', '.join(labels)}")
    return np.asarray(
        [labels.index(row.labels[head]) if head in row.labels else -1 for row in rows], np.int32
    )


def _weights(target: np.ndarray, labels: int) -> np.ndarray:
    counts = np.bincount(target[target >= 0], minlength=labels).astype(float)
    each = np.where(counts > 0, counts.sum() / (np.maximum(counts, 1) * (counts > 0).sum()), 0.0)
    return np.where(target >= 0, each[np.maximum(target, 0)], 0.0).astype(np.float32)

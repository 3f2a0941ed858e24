"""The data of a run that trains a policy on preferences: settings -> batches and their bounds."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH
from hen_jax.core.ranges import Positive
from hen_jax.data.comparison_batches import ComparisonConfig, trained_ids
from hen_jax.data.comparisons import Compared
from hen_jax.data.continuations import continuations
from hen_jax.data.preference_batches import (
    PreferenceBatch,
    PreferenceBounds,
    Weighed,
    WeighedBounds,
    eval_preferences,
    preference_bounds,
    train_preferences,
)
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.compared import Asked, ComparedParts, Scope, compared_parts, describe_part
from hen_jax.runs.stage import Feed, Load, RunSettings
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import LoopConfig
from hen_jax.training.processes import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceSettings(RunSettings):
    """Everything that decides what a preference run computes; sources hold pairs, or labels."""

    epochs: Positive  # passes over the prompts; a part of one is allowed
    data: ComparisonConfig = ComparisonConfig()
    preference: PreferenceConfig = PreferenceConfig()
    level: Scope = "conversation"  # pairs of whole conversations as they are, or turn by turn
    crossings: tuple[str, ...] = ()  # built from hed and steered sources; see `data.crossed.BUILT`
    plain: bool = True  # the sources' own pairs; False leaves only what is crossed
    loop: LoopConfig = LoopConfig(evaluators=("preferences",))

    @property
    def kto(self) -> bool:
        """Whether replies are judged one by one."""
        return self.preference.loss == "kto"


class Preferred(NamedTuple):
    """The data of a run, read."""

    parts: ComparedParts
    bounds: PreferenceBounds
    numbers: dict[Compared, int]  # places over the training part and then the held-out

    def rows(self) -> list[Compared]:
        """Those of both parts, by number."""
        return list(self.numbers)


def read_preferences(settings: PreferenceSettings, tokenizer: ChatTokenizer) -> Preferred:
    """Reads, deals, renders.

    Raises:
      InputError: as `compared_parts`.
    """
    data, chosen = settings.data, settings.preference
    asked = Asked(
        settings.sources, settings.level, settings.crossings, settings.plain, settings.kto
    )
    take = partial(continuations, discount=chosen.turn_discount)
    parts = compared_parts(asked, data, tokenizer, take)
    rows = [one for part in parts for one in part.found.all()]
    bounds = preference_bounds(rows, shared=data.shared_prompts, mismatches=settings.kto)
    return Preferred(parts, bounds, {row: number for number, row in enumerate(rows)})


def preference_feed(settings: PreferenceSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """One prompt with its replies a row."""
    data, found = settings.data, read_preferences(settings, tokenizer)
    shards = {"process_index": share.index, "process_count": share.count}
    for name, part in found.parts._asdict().items():
        print(describe_part(name, part, data))
    train, valid = (part.found for part in found.parts)
    sizes = (data, found.bounds, found.numbers)
    return Feed(
        steps=max(1, round(settings.epochs * len(train.all()) / data.batch_size)),
        bounds=found.bounds,
        batches=train_preferences(train, *sizes, **shards),
        held_out=partial(eval_preferences, valid.all(), *sizes, **shards),
        records=partial(trained_ids, train, data),
    )


def all_batches(
    settings: PreferenceSettings, found: Preferred, share: Share
) -> Iterator[PreferenceBatch]:
    """Every row of both parts once, by number; a process's part."""
    shards = {"process_index": share.index, "process_count": share.count}
    bounds = found.bounds._replace(mismatched=None)
    return eval_preferences(found.rows(), settings.data, bounds, found.numbers, **shards)


def preference_load(settings: PreferenceSettings, mesh: Mesh) -> Load:
    """Rows without padding, of two replies each, every position of which is taken to train."""
    data, where = settings.data, NamedSharding(mesh, PartitionSpec(BATCH))
    B, K, T = data.batch_size, 2, data.row_length

    def leaf(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    rows = Weighed(abstract_batch((B,), T, mesh, (BATCH,)), leaf(B, T))
    chosen = settings.preference
    stored = chosen.objective.start is not None and not chosen.keeps_reference
    J = 1 if chosen.values.tail == 1 else K
    bounds = WeighedBounds(T, K, T)
    return Load(
        PreferenceBatch(
            rows,
            leaf(B, K, K),
            leaf(B, K, 2),
            leaf(B, dtype=jnp.int32),
            mismatched=rows if settings.kto else None,
            reference=leaf(B, K, J) if stored else None,
        ),
        PreferenceBounds(bounds, bounds if settings.kto else None),
    )


def require_pairs(found: Preferred) -> None:
    """Raises `InputError` where no held-out pair could say what is preferred."""
    if not found.parts.valid.pairs():
        raise InputError(
            "config.loop.evaluators: 'preferences' needs held-out pairs, and the sources hold "
            "labels only; leave it out"
        )

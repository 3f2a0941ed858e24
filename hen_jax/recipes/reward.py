"""Reward models: a scalar head on a trunk, trained on compared replies (the reward model of HEN).

Left out: ranks of more than two as one event (Plackett-Luce); all their pairs are compared instead.
"""

import dataclasses
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.mesh import BATCH
from hen_jax.core.ranges import Positive
from hen_jax.data.comparison_batches import (
    ComparisonBounds,
    ComparisonConfig,
    eval_comparisons,
    train_comparisons,
    trained_ids,
)
from hen_jax.data.comparisons import ComparedBatch, render_comparisons
from hen_jax.data.rated import Reads
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.reward_report import preferences
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.compared import (
    Asked,
    ComparedParts,
    Scope,
    bounds_of,
    compared_parts,
    describe_part,
)
from hen_jax.runs.model import with_score_head
from hen_jax.runs.packed import check_rows, check_shared_prompts, packed_flops, packed_rows
from hen_jax.runs.stage import Feed, Load, RunSettings, Stage, Work, guarded
from hen_jax.steps.reward import RewardConfig, reward_loss
from hen_jax.steps.update import update_step
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import LoopConfig
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.processes import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardSettings(RunSettings):
    """Everything that decides what a reward model computes; sources hold pairs."""

    epochs: Positive  # passes over the prompts; a part of one is allowed
    data: ComparisonConfig = ComparisonConfig()
    reward: RewardConfig = RewardConfig()
    level: Scope = "conversation"  # pairs of whole conversations as they are, or turn by turn
    crossings: tuple[str, ...] = ()  # built from hed and steered sources; see `data.crossed.BUILT`
    plain: bool = True  # the sources' own pairs; False leaves only what is crossed
    reads: Reads = "conversation"  # "replies": what was asked is hidden, as a control
    control: str | None = None  # a finished run of that kind on the same data: told beside this one
    loop: LoopConfig = LoopConfig(evaluators=("preferences",))

    def parts(self, tokenizer: ChatTokenizer) -> ComparedParts:
        """What is compared.

        Raises:
          InputError: as `compared_parts`.
        """
        asked = Asked(self.sources, self.level, self.crossings, self.plain)
        return compared_parts(
            asked, self.data, tokenizer, partial(render_comparisons, reads=self.reads)
        )


def feed(settings: RewardSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """One prompt with its replies a row."""
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    parts = settings.parts(tokenizer)
    for name, part in parts._asdict().items():
        print(describe_part(name, part, data))
    train, bounds = parts.train.found, bounds_of(parts, data)
    return Feed(
        steps=max(1, round(settings.epochs * len(train.all()) / data.batch_size)),
        bounds=bounds,
        batches=train_comparisons(train, data, bounds, **shards),
        held_out=partial(eval_comparisons, parts.valid.found.all(), data, bounds, **shards),
        records=partial(trained_ids, train, data),
    )


def work(
    settings: RewardSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: ComparisonBounds,
    steps: int,
) -> Work:
    """Bradley-Terry over the replies to each prompt, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    loss = reward_loss(graphdef, bounds.replies, settings.reward, bounds.reach)
    return Work(update_step(loss, optimizer, settings.microbatches), optimizer, schedule, loss)


def load(settings: RewardSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Rows without padding, of two replies each."""
    data, where = settings.data, NamedSharding(mesh, PartitionSpec(BATCH))
    B, K = data.batch_size, 2
    known = jax.ShapeDtypeStruct((B, K, K), jnp.float32, sharding=where)
    rows: Any = abstract_batch((B,), data.row_length, mesh, (BATCH,))
    batch = ComparedBatch(rows, *(cast(Any, known) for _ in ("wins", "ties", "margin")))
    return Load(batch, ComparisonBounds(data.row_length, K))


STAGE = Stage(
    settings=RewardSettings,
    feed=feed,
    work=work,
    load=load,
    flops=packed_flops,
    summary=lambda one: f"reward modelling (Bradley-Terry, {one.epochs:g} epochs),",
    model_config=lambda settings, config: with_score_head(config),
    check=check_rows,
    check_model=check_shared_prompts,
    rows=packed_rows,
    changes=(NARROW,),
    speaks=False,
    evaluators={"preferences": preferences},
)

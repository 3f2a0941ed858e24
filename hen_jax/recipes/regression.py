"""Rating models: a sigmoid head on a trunk, trained on rated conversations (the generic reward
model of the empathetic expert adapters).

Left out: the judge's ordinal classes as an event of their own; ratings are numbers here.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.mesh import BATCH
from hen_jax.core.ranges import Positive
from hen_jax.data.rated_batches import (
    RatedBatch,
    RatedBounds,
    RatedConfig,
    bounds_of_rows,
    eval_rated,
    pack_rated,
    rated_ids,
    train_rated,
)
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.regression_report import ratings
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.model import with_score_head
from hen_jax.runs.packed import check_rows, packed_flops, packed_rows
from hen_jax.runs.rated import LABELS, Folds, Predicts, RatedAsked, Reads, Scope, rated_parts
from hen_jax.runs.stage import Feed, Load, RunSettings, Stage, Work, guarded
from hen_jax.steps.regression import regression_loss
from hen_jax.steps.update import update_step
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import LoopConfig
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.processes import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionSettings(RunSettings):
    """Everything that decides what a rating model computes; sources hold ratings."""

    epochs: Positive  # passes over the rows; a part of one is allowed
    data: RatedConfig = RatedConfig()
    level: Scope = "conversation"  # "turn": each rated reply is learnt, their mean is told
    reads: Reads = "conversation"  # "replies": the user's side is hidden, as a control
    predicts: Predicts = "overall"  # "dimensions": one output for each of the seven of SENSE-7
    folds: Folds = Folds()  # which groups are held out
    loop: LoopConfig = LoopConfig(evaluators=("ratings",))

    def asked(self) -> RatedAsked:
        """What is rated."""
        return RatedAsked(self.sources, self.level, self.reads, self.predicts, self.folds)


def feed(settings: RegressionSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """Rated conversations, packed into rows."""
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    parts = rated_parts(settings.asked(), data, tokenizer)
    for name, part in parts._asdict().items():
        print(part.describe(name, data.row_length))
    train, valid = (pack_rated(part.documents, data) for part in parts)
    bounds = bounds_of_rows([*train, *valid], len(LABELS[settings.predicts]))
    return Feed(
        steps=max(1, round(settings.epochs * len(train) / data.batch_size)),
        bounds=bounds,
        batches=train_rated(train, data, bounds, **shards),
        held_out=partial(eval_rated, valid, data, bounds, **shards),
        records=partial(rated_ids, train, data),
    )


def work(
    settings: RegressionSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: RatedBounds,
    steps: int,
) -> Work:
    """Squared error of the ratings in a batch, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer, loss = guarded(settings, schedule), regression_loss(graphdef, bounds.reach)
    return Work(update_step(loss, optimizer, settings.microbatches), optimizer, schedule, loss)


def load(settings: RegressionSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Rows without padding, of one rating each."""
    data, where = settings.data, NamedSharding(mesh, PartitionSpec(BATCH))
    B, O = data.batch_size, len(config.score_labels)  # noqa: E741
    rows = abstract_batch((B,), data.row_length, mesh, (BATCH,))
    marks = jax.ShapeDtypeStruct((B, 1), jnp.int32, sharding=where)
    rated = jax.ShapeDtypeStruct((B, 1, O), jnp.float32, sharding=where)
    batch = RatedBatch(rows, marks, rated, rated)  # pyright: ignore[reportArgumentType]
    return Load(batch, RatedBounds(data.row_length, 1, O))


STAGE = Stage(
    settings=RegressionSettings,
    feed=feed,
    work=work,
    load=load,
    flops=packed_flops,
    summary=lambda one: f"regression of ratings (squared error, {one.epochs:g} epochs),",
    model_config=lambda one, config: with_score_head(config, LABELS[one.predicts]),
    check=check_rows,
    rows=packed_rows,
    changes=(NARROW,),
    speaks=False,
    evaluators={"ratings": ratings},
)

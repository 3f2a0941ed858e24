"""Expert adapters: one LoRA per context on one frozen base, all trained in one program.

The shared adapter that experts are compared with is a run with a single expert.
"""

from flax import nnx
from jax.sharding import Mesh

from hen_jax.adapters.experts import joint_lora
from hen_jax.core.mesh import BATCH
from hen_jax.core.rows import check_batch
from hen_jax.data.pipeline import RowBounds
from hen_jax.models.config import DecoderConfig
from hen_jax.planning.model_flops import row_flops
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.experts_data import ExpertBounds, feed
from hen_jax.recipes.experts_settings import ExpertsSettings, adapters, rows
from hen_jax.runs.abstract import UPDATES, abstract_batch
from hen_jax.runs.packed import check_packing
from hen_jax.runs.stage import Load, Stage, Work, guarded
from hen_jax.steps.experts import experts_loss, experts_step
from hen_jax.training.optimizers import make_schedule


def work(
    settings: ExpertsSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: ExpertBounds,
    steps: int,
) -> Work:
    """Cross-entropy of each expert's own tokens; the log's learning rate is the longest run's."""
    named = adapters(settings)
    schedules = [make_schedule(settings.optimizer, max(own, 1)) for own in bounds.steps]
    optimizers = {
        name: guarded(settings, schedule) for name, schedule in zip(named, schedules, strict=True)
    }
    loss = experts_loss(
        graphdef, named, bounds.rows.trained, settings.logit_chunk, bounds.rows.reach
    )
    step = experts_step(loss, optimizers, settings.microbatches)
    return Work(step, optimizers, make_schedule(settings.optimizer, steps), score=loss)


def load(settings: ExpertsSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Full rows of every expert."""
    batch = abstract_batch((rows(settings),), settings.data.row_length, mesh, (BATCH,))
    bounds = ExpertBounds(RowBounds(settings.data.row_length), (UPDATES,) * len(settings.experts))
    return Load(batch._replace(task=None, expert=batch.task), bounds)


def flops(settings: ExpertsSettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in one update, on rows without padding."""
    named = adapters(settings)
    return rows(settings) * row_flops(config, joint_lora(named), settings.data.row_length)


def check(settings: ExpertsSettings, mesh: Mesh) -> None:
    """Raises `InputError` for rows that do not divide over devices and microbatches."""
    check_batch(rows(settings), settings.microbatches, mesh)


STAGE = Stage(
    settings=ExpertsSettings,
    feed=feed,
    work=work,
    load=load,
    flops=flops,
    summary=lambda settings: f"{len(settings.experts)} experts side by side, fine-tuning each,",
    adapters=adapters,
    check=check,
    check_model=check_packing,
    rows=rows,
    changes=(NARROW,),
    speaks=False,
)

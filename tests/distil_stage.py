"""A stage that is not ours: distil to what the model said at the start, plus a fixed bias."""

import dataclasses

import jax
import jax.numpy as jnp

from hen_jax.core.types import Mean
from hen_jax.models.decoder import merge
from hen_jax.runs import packed
from hen_jax.runs.stage import Stage, Work, guarded
from hen_jax.steps.update import update_step
from hen_jax.training.optimizers import make_schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilSettings(packed.PackedSettings):
    token: int = 7  # that the teacher says more often
    bias: float = 6.0


def distil_loss(graphdef, settings):
    def loss(params, frozen, batch):
        def logits(adapter):
            model = merge(graphdef, adapter, frozen["base"])
            return model.logits(model.hidden(batch.tokens, batch.positions, batch.segments))

        student = {name: leaf for name, leaf in params.items() if name != "sharpness"}
        said = jax.lax.stop_gradient(logits(frozen["teacher"]))
        teacher = jax.nn.log_softmax(said.at[..., settings.token].add(settings.bias))
        ours = jax.nn.log_softmax(logits(student) * (1 + params["sharpness"]))
        each = (jnp.exp(teacher) * (teacher - ours)).sum(-1) * batch.mask
        return Mean(each.sum(), batch.mask.sum()), {}

    return loss


def work(settings, config, graphdef, bounds, steps):
    schedule, loss = make_schedule(settings.optimizer, steps), distil_loss(graphdef, settings)
    update = update_step(loss, optimizer := guarded(settings, schedule), settings.microbatches)

    def step(state, frozen, batch):
        state, metrics = update(state, frozen, batch)
        now = metrics["loss"].total / metrics["loss"].count
        return state._replace(memory=0.9 * state.memory + 0.1 * now), metrics

    return Work(step, optimizer, schedule, loss, memory=lambda key: jnp.zeros(()))


STAGE = Stage(
    settings=DistilSettings,
    feed=packed.packed_feed,
    work=work,
    load=packed.packed_load,
    flops=packed.packed_flops,
    summary=lambda settings: f"distillation to a bias of {settings.bias}",
    kept=lambda settings, params, frozen: {"base": frozen, "teacher": params},
    extra=lambda settings, config, key: {"sharpness": jnp.zeros(())},
    rows=packed.packed_rows,
)

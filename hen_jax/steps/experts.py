"""Several experts trained in one program, each as if it trained alone."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Float

from hen_jax.adapters.experts import expert_gate, joint_adapter, one_hot
from hen_jax.core.types import Array, Batch, Mean, RowLimits, Tree
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import merge
from hen_jax.objectives.tokens import TokenScores, score_tokens
from hen_jax.steps.rounding import apply_updates, widened
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics, Step, summed_gradients


def loss_of(name: str) -> str:
    """The metric that holds an expert's own loss: the mean over its own tokens."""
    return f"loss_{name}"


def experts_loss(
    graphdef: nnx.GraphDef,
    experts: Mapping[str, LoraConfig],
    capacity: int | None = None,
    chunk: int = 64,
    reach: RowLimits | None = None,
) -> Loss:
    """Cross-entropy of the targets, each row by the adapter of `batch.expert [B]`.

    `params` is `{expert: adapter}`, `frozen` the base; the rest is as in `steps.sft.sft_loss`. The
    metrics hold each expert's loss and accuracy over its own tokens.
    """

    def loss(params: Tree, frozen: Tree, batch: Batch) -> tuple[Mean, Metrics]:
        weights = one_hot(batch.expert, len(experts))
        gate = expert_gate(list(experts.values()), weights)
        model = merge(graphdef, joint_adapter([params[name] for name in experts]), frozen)
        hidden = model.hidden(batch.tokens, batch.positions, batch.segments, reach, gate)
        scores = score_tokens(model.scorer(), hidden, batch.targets, batch.mask, capacity, chunk)
        metrics = _by_expert(scores, batch.mask, weights, tuple(experts))
        own = [metrics[loss_of(name)] for name in experts]
        return Mean(sum(mean.total for mean in own), sum(mean.count for mean in own)), metrics

    return loss


def _by_expert(
    scores: TokenScores,
    mask: Float[Array, "B T"],
    weights: Float[Array, "B E"],
    names: tuple[str, ...],
) -> Metrics:
    def sums(rows: Float[Array, "B"]) -> list[Array]:
        return list((weights * rows[:, None]).sum(axis=0))

    counts = sums(mask.sum(axis=1))
    losses = sums(-(scores.log_probs * mask).sum(axis=1))
    right = sums((scores.correct * mask).sum(axis=1))
    found = {}
    for name, count, total, correct in zip(names, counts, losses, right, strict=True):
        found |= {loss_of(name): Mean(total, count), f"accuracy_{name}": Mean(correct, count)}
    return found


def experts_step(
    loss: Loss, optimizers: Mapping[str, optax.GradientTransformation], microbatches: int = 1
) -> Step:
    """One update of every expert that has tokens in the batch, by the mean over its own tokens.

    Gradients, clipping, moments and their counts are the expert's own, so that experts trained
    together end as trained apart. One without a token in the batch is left as it is, moments and
    all.
    """

    def step(state: State, frozen: Tree, batch: Tree) -> tuple[State, Metrics]:
        grads, mean, metrics = summed_gradients(loss, state.params, frozen, batch, microbatches)
        key = jax.random.fold_in(state.key, state.step)
        made, moments = {}, _by_name(state.opt_state)
        for name, optimizer in optimizers.items():
            old, count = (state.params[name], moments[name]), metrics[loss_of(name)].count
            mean_grads = jax.tree.map(partial(_divided, count=count), grads[name])
            updates, own = optimizer.update(mean_grads, old[1], widened(old[0]))
            new = apply_updates(old[0], updates, key), own
            made[name] = jax.tree.map(partial(jnp.where, count > 0), new, old)
        one = jnp.ones((), jnp.float32)
        metrics |= {"loss": mean, "grad_norm": Mean(optax.tree.norm(grads), one)}
        return state._replace(
            params={name: params for name, (params, _) in made.items()},
            opt_state={name: moments for name, (_, moments) in made.items()},
            step=state.step + 1,
        ), metrics

    return step


def _divided(grad: Array, count: Float[Array, ""]) -> Array:
    return Mean(grad, count.astype(grad.dtype)).value


def _by_name(moments: Tree) -> dict[str, Tree]:
    return dict(moments)

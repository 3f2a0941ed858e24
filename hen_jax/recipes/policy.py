"""Reinforcement learning from rewards: PPO, GRPO and their kin (the RL stage of HEN).

HEN's paper says that RL "adjusts the reward model's scoring"; the rest is our reconstruction.
Left out: rewards of single steps, tree search, and a critic with a trunk of its own.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from hen_jax.core.types import Tree
from hen_jax.data.rollouts import RolloutBounds
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import Decoder, split
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.policy_checks import check, check_model, hold, require_policy_start
from hen_jax.recipes.policy_rollouts import engine_slots, prepare
from hen_jax.recipes.policy_settings import PolicySettings, feed, flops, load, names_of, red_flags
from hen_jax.runs.stage import Stage, Work, guarded
from hen_jax.steps.policy import first_memory, policy_says, policy_score, policy_step
from hen_jax.steps.policy_config import BEHAVIOUR, CRITIC, VALUE
from hen_jax.steps.preference_plan import with_reference
from hen_jax.training.optimizers import make_schedule


def work(
    settings: PolicySettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: RolloutBounds,
    steps: int,
) -> Work:
    """The objective over a rollout, `policy.epochs x policy.minibatches` updates a step."""
    policy, updates = settings.policy, settings.policy.updates
    schedule = make_schedule(settings.optimizer, steps * updates)
    optimizer = guarded(settings, schedule)
    says = policy_says(graphdef, policy, bounds, settings.rollout.temperature, settings.logit_chunk)
    names, trained = names_of(settings), [not one.held_out for one in settings.rewards]
    shown = tuple(name if on else None for name, on in zip(names, trained, strict=True))
    step = policy_step(says, policy, bounds, optimizer, settings.microbatches, shown)

    def memory(key: PRNGKeyArray) -> Tree:
        kept = first_memory(policy)
        return kept | ({BEHAVIOUR: _no_adapter(settings, config)} if settings.rollout.ahead else {})

    return Work(
        step, optimizer, lambda n: schedule(n * updates), policy_score(says, policy, names), memory
    )


def _adapter(settings: PolicySettings, config: DecoderConfig, key: PRNGKeyArray) -> Tree:
    return split(Decoder(key, config, settings.adapter, settings.execution)).adapter


def _no_adapter(settings: PolicySettings, config: DecoderConfig) -> Tree:
    shapes = jax.eval_shape(partial(_adapter, settings, config), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _extra(settings: PolicySettings, config: DecoderConfig, key: PRNGKeyArray) -> dict[str, Tree]:
    """The value model of PPO: a head that begins at 0 and, if asked for, an adapter of its own."""
    if not settings.policy.valued:
        return {}
    value: dict[str, Tree] = {"kernel": jnp.zeros((config.width, 1), jnp.float32)}
    if settings.policy.value.model == "adapter":
        value[CRITIC] = jax.jit(partial(_adapter, settings, config))(key)
    return {VALUE: value}


STAGE = Stage(
    settings=PolicySettings,
    feed=feed,
    work=work,
    load=load,
    flops=flops,
    summary=lambda one: f"reinforcement learning ({one.policy.advantage.kind} advantages),",
    prepare=prepare,
    kept=lambda settings, *trees: with_reference(settings.policy.kl.needed, *trees),
    extra=_extra,
    check=check,
    check_model=check_model,
    first=require_policy_start,
    before=hold,
    flags=red_flags,
    rows=lambda settings: settings.data.batch_size,
    slots=engine_slots,
    changes=(NARROW,),
    headline="reward",
)

"""Reinforcement learning from rewards: PPO, GRPO and their kin (the RL stage of HEN).

HEN's paper says that RL "adjusts the reward model's scoring"; the rest is our reconstruction.
Left out: rewards of single steps, tree search, and a critic with a trunk of its own.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from hen_jax.core.errors import InputError
from hen_jax.core.rows import check_batch
from hen_jax.core.types import Tree
from hen_jax.data.rollouts import MULTIPLE, RolloutBounds
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import Decoder, split
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.policy_rewards import Circumstance, check_rewards, terms
from hen_jax.recipes.policy_settings import PolicySettings, feed, flops, load, names_of
from hen_jax.recipes.policy_users import check_user, open_user
from hen_jax.runs.packed import require_shared
from hen_jax.runs.rollouts import Room, preparing
from hen_jax.runs.speech import own_speech
from hen_jax.runs.stage import Job, Stage, Work, guarded
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.slots import Slots
from hen_jax.steps.policy import (
    BASE,
    BEHAVIOUR,
    CRITIC,
    REFERENCE,
    VALUE,
    first_memory,
    policy_says,
    policy_score,
    policy_step,
)
from hen_jax.text.chat import stop_ids
from hen_jax.training.loop import Prepare
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.placement import to_devices
from hen_jax.training.red_flags import Flags, RedFlag, watchful


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


def extra(settings: PolicySettings, config: DecoderConfig, key: PRNGKeyArray) -> dict[str, Tree]:
    """The value model of PPO: a head that begins at 0 and, if asked for, an adapter of its own."""
    if not settings.policy.valued:
        return {}
    value: dict[str, Tree] = {"kernel": jnp.zeros((config.width, 1), jnp.float32)}
    if settings.policy.value.model == "adapter":
        value[CRITIC] = jax.jit(partial(_adapter, settings, config))(key)
    return {VALUE: value}


def prepare(job: Job) -> Prepare:
    """Between prompts and update: replies are drawn with the parameters of now, and judged."""
    settings: PolicySettings = job.settings
    made, sizes, stops = settings.rollout, job.feed.bounds, stop_ids(job.tokenizer)
    slots = dataclasses.replace(engine_slots(settings, sizes), stops=len(stops))
    speak = own_speech(
        job.model.graphdef, slots, Sampling(made.temperature), stops, made.max_new_tokens
    )
    room = Room(
        made,
        sizes,
        speak,
        lambda tokens: str(job.tokenizer.tokenizer.decode(tokens)),
        job.tokenizer,
        terms(settings.rewards, Circumstance(made.reward_seconds, slots.places + 8)),
        open_user(settings.user),
        settings.policy.valued,
        settings.seed,
    )
    return preparing(room, to_devices(job.mesh), job.workdir)


def engine_slots(settings: PolicySettings, sizes: RolloutBounds) -> Slots:
    """What replies are drawn with."""
    prefill = -(-sizes.prompt // MULTIPLE) * MULTIPLE
    places = sizes.prompt + sizes.longest
    return Slots(
        settings.rollout.slots, places, prefill=(prefill,), prefill_tokens=4 * prefill, biases=0
    )


def check(settings: PolicySettings, mesh: Mesh) -> None:
    """Raises `InputError` for rows that do not divide, rewards that are not there, and settings
    that contradict each other."""
    check_batch(settings.data.batch_size, settings.microbatches * settings.policy.minibatches, mesh)
    check_rewards(settings.rewards)
    check_user(settings.rollout.turns, settings.user)
    made, policy = settings.rollout, settings.policy
    if jax.process_count() > 1:
        raise InputError("the policy stage is for one process; give all devices to one")
    if not policy.valued and made.replies < 2:
        raise InputError(
            "config.rollout.replies is 1; advantages of a group need 2 or more, or "
            "config.policy.advantage.kind='gae'"
        )
    if made.ahead and (settings.adapter is None or not policy.objective.importance_cap):
        raise InputError(
            "config.rollout.ahead is 1, which keeps the older parameters and weights their "
            "replies; give config.adapter, and config.policy.objective.importance_cap=2.0"
        )
    if policy.valued and policy.value.model == "adapter" and settings.adapter is None:
        raise InputError("config.policy.value.model is 'adapter', which needs config.adapter")


def check_model(settings: PolicySettings, config: DecoderConfig) -> None:
    """Raises `InputError` where replies do not fit, or cannot share their prompt in this model."""
    longest = settings.data.prompt_length + settings.rollout.longest
    if longest > config.max_length:
        raise InputError(
            f"config.data.prompt_length {settings.data.prompt_length} and replies of "
            f"{settings.rollout.longest} tokens exceed the model's {config.max_length} positions"
        )
    sizes = settings.sizes(settings.data.prompt_length)
    if sizes.reach.prefix:
        refused = "config.rollout.shared_prompts is True, which"
        plain = "config.rollout.shared_prompts=False"
        require_shared(settings.execution.attention, sizes.row, config, refused, plain)


def red_flags(settings: PolicySettings) -> Flags:
    """Those of the settings, and one on each reward that gives all replies the same."""
    trained = (one.called for one in settings.rewards if not one.held_out)
    same = (RedFlag(f"spread/{name}", below=1e-6, updates=3) for name in trained)
    return watchful((*settings.flags, *same))


STAGE = Stage(
    settings=PolicySettings,
    feed=feed,
    work=work,
    load=load,
    flops=flops,
    summary=lambda one: f"reinforcement learning ({one.policy.advantage.kind} advantages),",
    prepare=prepare,
    kept=lambda params, frozen: {BASE: frozen, REFERENCE: params},
    keeps=lambda settings: settings.policy.kl.needed,
    extra=extra,
    check=check,
    check_model=check_model,
    flags=red_flags,
    rows=lambda settings: settings.data.batch_size,
    slots=engine_slots,
    changes=(NARROW,),
    headline="reward",
)

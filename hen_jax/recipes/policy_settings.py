"""What a policy run is told: its settings, its prompts, and the shapes of its update."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.mesh import BATCH
from hen_jax.core.ranges import Positive
from hen_jax.core.types import Array
from hen_jax.data.rollouts import Rollout, RolloutBounds, bounds
from hen_jax.models.config import DecoderConfig
from hen_jax.planning.model_flops import RowShape, scoring_flops, training_flops
from hen_jax.recipes.policy_reward_source import RewardSource
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.prompts import (
    PromptConfig,
    asked_ids,
    held_out_batches,
    prompt_parts,
    train_prompts,
)
from hen_jax.runs.rollouts import RolloutConfig
from hen_jax.runs.stage import Feed, Load, RunSettings
from hen_jax.steps.policy_config import PolicyConfig
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.processes import Share
from hen_jax.training.red_flags import Flags, RedFlag, watchful

FLAGS = (
    RedFlag("sampler_gap", above=0.02),
    RedFlag("kl", above=30.0),
    RedFlag("clipped", above=0.5),
    RedFlag("entropy", below=0.01, updates=3),
    RedFlag("zero_spread", above=0.9, updates=3),
    RedFlag("truncated", above=0.5, updates=3),
    RedFlag("repeated", above=0.5, updates=3),
    RedFlag("not_judged", above=0.2),
)
"""What is told of any policy run; none of them ends it unless its `stop` is set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicySettings(RunSettings):
    """Everything that decides what a policy learns; sources hold prompts."""

    epochs: Positive  # passes over the prompts; a part of one is allowed
    rewards: tuple[RewardSource, ...]  # mixed with their weights
    data: PromptConfig = PromptConfig()
    rollout: RolloutConfig = RolloutConfig()
    policy: PolicyConfig = PolicyConfig()
    flags: tuple[RedFlag, ...] = FLAGS  # limits on metrics, which warn or stop by name
    user: str | None = None  # who speaks between turns: model:, endpoint: or replay:, as for judges

    def sizes(self, prompt: int) -> RolloutBounds:
        """What no row exceeds where no prompt is longer than `prompt` tokens."""
        made = self.rollout
        shared = made.shared_prompts and made.replies > 1
        return bounds(prompt, made.longest, made.replies, shared, self.policy.valued)


def red_flags(settings: PolicySettings) -> Flags:
    """Those of the settings, and one on each reward that gives all replies the same."""
    trained = (one.called for one in settings.rewards if not one.held_out)
    same = (RedFlag(f"spread/{name}", below=1e-6, updates=3) for name in trained)
    return watchful((*settings.flags, *same))


def names_of(settings: PolicySettings) -> tuple[str, ...]:
    """The names of the rewards, in order."""
    return tuple(one.called for one in settings.rewards)


def feed(settings: PolicySettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """Prompts; the rollouts are made of them before each step."""
    data = settings.data
    parts = prompt_parts(settings.sources, data, tokenizer)
    longest = max(len(one.tokens) for part in parts for one in part)
    return Feed(
        steps=max(1, round(settings.epochs * len(parts.train) / data.batch_size)),
        bounds=settings.sizes(longest),
        batches=train_prompts(parts.train, data, share),
        held_out=partial(held_out_batches, parts.valid, data, share),
        records=partial(asked_ids, parts.train, data),
    )


def load(settings: PolicySettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Prompts and replies as long as they may be."""
    sizes, where = (
        settings.sizes(settings.data.prompt_length),
        NamedSharding(mesh, PartitionSpec(BATCH)),
    )
    B, G, C = settings.data.batch_size, sizes.replies, len(settings.rewards)

    def leaf(*shape: int, dtype: Array = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((B, *shape), dtype, sharding=where)

    batch = abstract_batch((B,), sizes.row, mesh, (BATCH,))._replace(task=None)
    flags = leaf(G, dtype=jnp.bool_), leaf(G, dtype=jnp.bool_)
    return Load(Rollout(batch, leaf(sizes.row), leaf(G), leaf(G, C), *flags, leaf(G)), sizes)


def flops(settings: PolicySettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in the updates of one rollout, and in the forward passes before them:
    for old log-probabilities or values, and for the reference. Sampling is not counted."""
    sizes, policy = settings.sizes(settings.data.prompt_length), settings.policy
    rows = RowShape(settings.data.batch_size, sizes.row, sizes.trained)
    update = training_flops(config, settings.adapter, rows)
    forward = scoring_flops(config, settings.adapter, rows)
    before = policy.valued or policy.updates > 1
    return policy.epochs * update + (before + policy.kl.needed) * forward

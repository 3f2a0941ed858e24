"""What a policy run refuses, before anything is read and before the first update."""

from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.rows import check_batch
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.policy_rewards import check_rewards
from hen_jax.recipes.policy_settings import PolicySettings
from hen_jax.recipes.policy_users import check_user
from hen_jax.runs.chats import back_end
from hen_jax.runs.packed import require_shared
from hen_jax.runs.reference import hold_reference
from hen_jax.runs.stage import Job

_CLOSE = 1e-3
"""Nats per reply by which a policy may differ from its reference before the first update."""


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
    if made.sampler is not None:
        if back_end(made.sampler).kind != "endpoint":
            raise InputError(f"config.rollout.sampler is {made.sampler!r}; give endpoint:URL#MODEL")
        if made.temperature != 1.0 or not policy.objective.importance_cap or made.ahead:
            raise InputError(
                "config.rollout.sampler draws at temperature 1 from weights of its own; give "
                "config.rollout.temperature=1.0, config.rollout.ahead=0 and "
                "config.policy.objective.importance_cap=2.0"
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


def require_policy_start(job: Job, values: Mapping[str, float]) -> None:
    """Refuses a policy that is not its own reference before the first update.

    Raises:
      InputError: the KL of the held-out replies from the reference is not 0.
    """
    apart = values.get("kl", 0.0)
    if not abs(apart) < _CLOSE:
        raise InputError(
            f"before the first update the policy is {apart:.6f} nats per reply from its reference; "
            "the reference is not what this run starts from"
        )


def hold(job: Job) -> None:
    """Refuses to go on with another reference than the run began with."""
    if job.settings.policy.kl.needed:
        hold_reference(job)

"""How the rollouts of a policy run are made: the engine, the rewards, and who speaks between."""

import dataclasses

from hen_jax.data.rollouts import MULTIPLE, RolloutBounds
from hen_jax.io.endpoint import Endpoint
from hen_jax.recipes.policy_reward_source import Circumstance
from hen_jax.recipes.policy_rewards import terms
from hen_jax.recipes.policy_settings import PolicySettings
from hen_jax.recipes.policy_users import open_user
from hen_jax.runs.chats import back_end
from hen_jax.runs.rollouts import RolloutConfig, Room, preparing
from hen_jax.runs.speech import Speak, endpoint_speech, own_speech
from hen_jax.runs.stage import Job
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.slots import Slots
from hen_jax.text.chat import stop_ids
from hen_jax.training.loop import Prepare
from hen_jax.training.placement import to_devices


def engine_slots(settings: PolicySettings, sizes: RolloutBounds) -> Slots:
    """The engine's slots: a whole prompt is read at once, and no row is longer than it may be."""
    prefill = -(-sizes.prompt // MULTIPLE) * MULTIPLE
    places = sizes.prompt + sizes.longest
    return Slots(
        settings.rollout.slots, places, prefill=(prefill,), prefill_tokens=4 * prefill, biases=0
    )


def prepare(job: Job) -> Prepare:
    """Between prompts and update: replies are drawn with the parameters of now, and judged."""
    settings: PolicySettings = job.settings
    made, sizes, stops = settings.rollout, job.feed.bounds, stop_ids(job.tokenizer)
    places = sizes.prompt + sizes.longest
    slots = dataclasses.replace(engine_slots(settings, sizes), stops=len(stops))
    speak = own_speech(
        job.model.graphdef, slots, Sampling(made.temperature), stops, made.max_new_tokens
    )
    room = Room(
        made,
        sizes,
        speak if made.sampler is None else _elsewhere(made, stops),
        speak,
        lambda tokens: str(job.tokenizer.tokenizer.decode(tokens)),
        job.tokenizer,
        terms(settings.rewards, Circumstance(made.reward_seconds, places + 8)),
        open_user(settings.user, made.user_tokens, settings.seed),
        settings.policy.valued,
        settings.seed,
    )
    return preparing(room, to_devices(job.mesh), job.workdir)


def _elsewhere(made: RolloutConfig, stops: tuple[int, ...]) -> Speak:
    found = back_end(str(made.sampler))
    return endpoint_speech(Endpoint(found.where, found.model, made.max_new_tokens), stops)

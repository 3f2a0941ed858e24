"""How the rollouts of a policy run are made: the engine, the rewards, and who speaks between."""

from hen_jax.data.rollouts import MULTIPLE
from hen_jax.recipes.policy_rewards import Circumstance, terms
from hen_jax.recipes.policy_settings import PolicySettings
from hen_jax.recipes.policy_users import open_user
from hen_jax.runs.rollouts import Room, preparing
from hen_jax.runs.speech import own_speech
from hen_jax.runs.stage import Job
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.slots import Slots
from hen_jax.text.chat import stop_ids
from hen_jax.training.loop import Prepare
from hen_jax.training.placement import to_devices


def prepare(job: Job) -> Prepare:
    """Between prompts and update: replies are drawn with the parameters of now, and judged."""
    settings: PolicySettings = job.settings
    made, sizes, stops = settings.rollout, job.feed.bounds, stop_ids(job.tokenizer)
    places = sizes.prompt + sizes.longest
    prefill = -(-sizes.prompt // MULTIPLE) * MULTIPLE
    slots = Slots(
        made.slots,
        places,
        prefill=(prefill,),
        prefill_tokens=4 * prefill,
        stops=len(stops),
        biases=0,
    )
    speak = own_speech(
        job.model.graphdef, slots, Sampling(made.temperature), stops, made.max_new_tokens
    )
    room = Room(
        made,
        sizes,
        speak,
        lambda tokens: str(job.tokenizer.tokenizer.decode(tokens)),
        job.tokenizer,
        terms(settings.rewards, Circumstance(made.reward_seconds, places + 8)),
        open_user(settings.user, made.user_tokens, settings.seed),
        settings.policy.valued,
        settings.seed,
    )
    return preparing(room, to_devices(job.mesh), job.workdir)

"""Policies learn: a bandit and a task of length, by GRPO and by PPO, near where they started."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, tiny

from hen_jax.core.types import Tree
from hen_jax.data.rollouts import JudgedGroup, Sampled, bounds, rollout_batch
from hen_jax.models.config import Execution
from hen_jax.objectives.advantages import AdvantageConfig
from hen_jax.objectives.policy import KlConfig, ObjectiveConfig
from hen_jax.runs.speech import Spoken, own_speech
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.slots import Slots
from hen_jax.steps.policy import first_memory, policy_says, policy_step
from hen_jax.steps.policy_config import VALUE, PolicyConfig, ValueConfig
from hen_jax.steps.preference import BASE, REFERENCE
from hen_jax.steps.state import init_state

PROMPT, LONGEST, G, B, STOP = 4, 4, 8, 8, 2
ROWS = G * B
CAP = 10.0
"""Nats per reply from the start that a policy may end at."""

GRPO = PolicyConfig(
    objective=ObjectiveConfig(aggregate="sequence"), kl=KlConfig(0.05), truncated="keep"
)
PPO = PolicyConfig(
    advantage=AdvantageConfig(kind="gae", trace=1.0),
    kl=KlConfig(0.02, "reward"),
    value=ValueConfig(coefficient=0.5),
    truncated="end",  # the limit is a part of these tasks
    epochs=4,
)


def bandit(spoken: Spoken) -> float:
    """The first token is one of eight of the 61."""
    return float(8 <= spoken.tokens[0] < 16)


def brief(spoken: Spoken) -> float:
    """The reply ends by itself after two to four tokens."""
    return float(spoken.stopped and 2 <= len(spoken.tokens) <= 4)


class Bench:
    """One engine for all tests, which compile it once."""

    def __init__(self):
        self.parts = tiny(execution=Execution(remat="none"))
        slots = Slots(ROWS, PROMPT + LONGEST, 6, (8,), 64, stops=1, biases=0)
        self.speak = own_speech(self.parts.graphdef, slots, Sampling(), (STOP,), LONGEST)
        self.steps: dict[PolicyConfig, Callable] = {}
        self.optimizer = optax.adam(0.03)

    def step(self, config: PolicyConfig) -> Callable:
        if config not in self.steps:
            sizes = bounds(PROMPT, LONGEST, G, True, config.valued)
            says = policy_says(self.parts.graphdef, config, sizes, 1.0)
            self.steps[config] = jax.jit(policy_step(says, config, sizes, self.optimizer))
        return self.steps[config]

    def rollout(self, params: Tree, task: Callable, number: int, valued: bool):
        """Groups of random prompts, and what they earned on the average."""
        rng = np.random.default_rng(number)
        prompts = [rng.integers(3, CONFIG.vocab_size, PROMPT).astype(np.int32) for _ in range(B)]
        seeds = rng.integers(0, 2**32, ROWS).tolist()
        spoken = self.speak(params, {})([one for one in prompts for _ in range(G)], seeds)
        rewards = np.asarray([task(one) for one in spoken], np.float32).reshape(B, G)
        groups = [
            JudgedGroup(
                prompt,
                tuple(
                    Sampled(
                        one.tokens, np.ones(len(one.tokens), bool), one.log_probs, not one.stopped
                    )
                    for one in spoken[at * G : (at + 1) * G]
                ),
                rewards[at],
                rewards[at][:, None],
                np.ones(G, bool),
            )
            for at, prompt in enumerate(prompts)
        ]
        sizes = bounds(PROMPT, LONGEST, G, True, valued)
        return rollout_batch(groups, sizes, 1, valued), float(rewards.mean())


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.slow
@pytest.mark.parametrize("task", [bandit, brief])
@pytest.mark.parametrize("config", [GRPO, PPO], ids=["grpo", "ppo"])
def test_from_below_a_fifth_to_above_four_fifths_under_a_cap_on_kl(bench, task, config):
    start = bench.parts.base
    frozen = {BASE: {}, REFERENCE: start}
    params = dict(start)
    if config.valued:
        params[VALUE] = {"kernel": jnp.zeros((CONFIG.width, 1))}
    state = init_state(params, bench.optimizer, 0, first_memory(config))
    earned, values = [], {}
    for number in range(100):
        own = {name: leaf for name, leaf in state.params.items() if name != VALUE}
        rollout, reward = bench.rollout(own, task, number, config.valued)
        earned.append(reward)
        if number > 5 and np.mean(earned[-3:]) > 0.85:
            break
        state, metrics = bench.step(config)(state, frozen, rollout)
        values = {name: float(mean.value) for name, mean in jax.device_get(metrics).items()}
        assert values["sampler_gap"] < 1e-4
    assert np.mean(earned[:3]) < 0.2
    assert np.mean(earned[-3:]) > 0.8
    assert values["kl"] < CAP

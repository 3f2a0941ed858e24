"""Experts that learn preferences together are experts that learn them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_preference import PAIRS, WIDE, said
from tiny_model import stirred
from tiny_run import config, read
from tiny_tokenizer import tiny_tokenizer

from hen_jax.adapters.experts import joint_lora
from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.data.continuations import continuations
from hen_jax.data.joined import join_batches
from hen_jax.data.preference_batches import preference_batch, preference_bounds
from hen_jax.data.preferences import Pair
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import Decoder, abstract, split
from hen_jax.recipes.experts_preference_data import settings_alone
from hen_jax.steps.experts import experts_step, loss_of
from hen_jax.steps.preference import (
    completed,
    preference_loss,
    preference_score,
    preference_step,
)
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.steps.preference_plan import BASE, REFERENCE, PreferencePlan
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.text.conversation import Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.guards import GuardConfig, guard, reporting
from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule

PLAIN = Execution(remat="none")
LORAS = {
    "calm": LoraConfig(2, 6.0),
    "brisk": LoraConfig(1, 0.5),
    "warm": LoraConfig(3, 3.0),
    "plain": LoraConfig(1, 2.0),
}
JOINT = split(abstract(WIDE, joint_lora(LORAS), PLAIN)).graphdef
DECODER = split(Decoder(jax.random.key(0), WIDE, LORAS["calm"], PLAIN))
MIXED = PreferenceConfig(loss="dpo", sft=0.3)
MORE = [
    Pair("e", "e", (Message("user", "It rains."),), said("Stay in, then, and rest."), said("So?")),
    Pair("f", "f", (Message("user", "I lost my key!"),), said("Oh no."), said("Look for it.")),
    Pair("g", "g", (Message("user", "Thank you."),), said("Gladly."), said("It is nothing much.")),
]


def adapters(seed: int):
    return {
        name: stirred(split(Decoder(jax.random.key(0), WIDE, lora, PLAIN)).adapter, seed + at)
        for at, (name, lora) in enumerate(LORAS.items())
    }


POLICY, START = adapters(3), adapters(20)


@pytest.fixture(scope="module")
def compared():
    tokenizer = tiny_tokenizer()
    words = ChatTokenizer(tokenizer, detect_format(tokenizer))
    return continuations([*PAIRS, *MORE], words, row_length=512).compared


@pytest.fixture(scope="module")
def bounds(compared):
    return preference_bounds(compared, shared=True, mismatches=True)


@pytest.fixture(scope="module")
def parts(compared, bounds):
    """Two prompts of each expert; `warm` has but one, `brisk` none in step 1."""

    def rows(*places):
        own = [None if place is None else compared[place] for place in places]
        real = [row for row in own if row is not None]
        before = [*real[-1:], *real[:-1], *[None] * (len(own) - len(real))]
        numbers = {row: number for number, row in enumerate(compared)}
        return preference_batch(own, before, bounds, numbers)

    def of_step(step):
        found = {"calm": rows(0, 1), "brisk": rows(2, 3), "warm": rows(4, None)}
        found["plain"] = rows(5, 6 - step)
        return found | ({"brisk": None} if step == 1 else {})

    return [of_step(step) for step in range(2)]


def joined(parts):
    return jax.tree.map(jnp.asarray, join_batches(dict(enumerate(parts.values()))))


def without_mismatches(batch):
    return batch._replace(mismatched=None)


def optimizer(steps: int):
    given = OptimizerConfig(0.05, warmup=0.0, clip_norm=0.02, weight_decay=0.1, eps=1e-2)
    return guard(make_optimizer(given, make_schedule(given, steps)), GuardConfig())


OPTIMIZERS = {name: optimizer(steps) for name, steps in zip(LORAS, (3, 2, 5, 4), strict=True)}


@pytest.fixture(scope="module")
def two_steps(parts, bounds):
    plan = PreferencePlan(JOINT, bounds._replace(mismatched=None), MIXED, experts=LORAS)
    update = reporting(experts_step(preference_loss(plan), OPTIMIZERS))
    step = jax.jit(preference_step(update, completed(plan)))
    states, found = [init_state(POLICY, OPTIMIZERS, 0)], []
    for part in parts:
        frozen = {BASE: DECODER.base, REFERENCE: START}
        state, metrics = step(states[-1], frozen, without_mismatches(joined(part)))
        states.append(state)
        found.append(metrics)
    return states, found


@pytest.mark.parametrize("name", ["calm", "brisk"])
def test_four_together_are_as_four_apart(two_steps, parts, bounds, name):
    """DPO with cross-entropy, each from a reference of its own, clipped, one absent once."""
    graphdef = split(abstract(WIDE, LORAS[name], PLAIN)).graphdef
    plan = PreferencePlan(graphdef, bounds._replace(mismatched=None), MIXED)
    update = update_step(preference_loss(plan), OPTIMIZERS[name])
    step = jax.jit(preference_step(update, completed(plan)))
    frozen = {BASE: DECODER.base, REFERENCE: START[name]}
    one, own = init_state(POLICY[name], OPTIMIZERS[name], 0), 0
    states, found = two_steps
    for number, part in enumerate(parts):
        if part[name] is not None:
            mine = without_mismatches(jax.tree.map(jnp.asarray, part[name]))
            one, metrics = step(one, frozen, mine)
            assert float(metrics["grad_norm"].value) > 0.02  # so that it is clipped
            for key in ("dpo", "nll", "accuracy", "reward/margin"):
                theirs = found[number][f"{key}_{name}"].value
                np.testing.assert_allclose(
                    theirs, metrics[key].value, rtol=1e-5, atol=1e-5, err_msg=key
                )
            loss = found[number][loss_of(name)]
            np.testing.assert_allclose(loss.value, metrics["loss"].value, rtol=1e-5)
            own += 1
        ours, alone = flatten(states[number + 1].params[name]), flatten(one.params)
        for path, leaf in alone.items():
            np.testing.assert_allclose(ours[path], leaf, rtol=1e-5, atol=1e-5, err_msg=path)
        assert int(states[number + 1].opt_state[name].good) == own


def test_an_expert_without_a_prompt_keeps_every_bit(two_steps):
    states, found = two_steps
    before, after = ((s.params["brisk"], s.opt_state["brisk"]) for s in states[1:3])
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert float(found[1][loss_of("brisk")].count) == 0
    assert float(found[1][loss_of("warm")].count) == 1  # of its two rows one is padding


def test_each_expert_has_the_z0_of_its_own_prompts(parts, bounds):
    """KTO by value: z0 is a mean over the mismatched replies of the expert alone."""
    kto = PreferenceConfig(loss="kto")
    frozen = {BASE: DECODER.base, REFERENCE: START}
    plan = PreferencePlan(JOINT, bounds, kto, experts=LORAS)
    score = jax.jit(preference_score(preference_loss(plan), completed(plan)))
    _, found = score(POLICY, frozen, joined(parts[0]))
    for name in ("calm", "plain"):
        graphdef = split(abstract(WIDE, LORAS[name], PLAIN)).graphdef
        plan = PreferencePlan(graphdef, bounds, kto)
        score = jax.jit(preference_score(preference_loss(plan), completed(plan)))
        own = frozen | {REFERENCE: START[name]}
        _, apart = score(POLICY[name], own, jax.tree.map(jnp.asarray, parts[0][name]))
        for key in ("kto", "z0", "ratio/wanted", "weight"):
            theirs = found[f"{key}_{name}"].value
            np.testing.assert_allclose(theirs, apart[key].value, rtol=1e-5, atol=1e-5, err_msg=key)
    z0 = {name: float(found[f"z0_{name}"].value) for name in LORAS}
    assert len(set(z0.values())) > 2  # and no mean over all


def settings(**changes):
    given = {
        "recipe": "experts_preference",
        "sources": (),
        "experts": (
            {"name": "one", "sources": SOURCES, "rank": 3, "epochs": 2.0},
            {"name": "two", "sources": SOURCES},
        ),
        "data": {"batch_size": 2},
        "loop": {},
    }
    return read(config(".", **(given | changes)))[1]


SOURCES = ({"schema": "crossed", "path": "shipped:crossed/level.en.jsonl"},)


def test_an_expert_alone_is_a_preference_run_of_its_own():
    one, two = (settings_alone(settings(), expert) for expert in settings().experts)
    assert (one.epochs, one.adapter.rank, two.epochs, two.adapter.rank) == (2.0, 3, 0.25, 2)
    assert one.sources == settings().experts[0].sources
    assert type(one).__name__ == "PreferenceSettings"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preference": {"reference": "precomputed"}}, "which experts do not have"),
        ({"sources": SOURCES}, "each its own sources"),
        ({"experts": ({"name": "one"}, {"name": "two"})}, "have no sources"),
        ({"adapter": None}, "experts are adapters"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)

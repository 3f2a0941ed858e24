"""Policy steps on a tiny model: shared prompts, microbatches and devices change no number."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from tiny_model import CONFIG, stirred, tiny

from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import flatten
from hen_jax.data.rollouts import JudgedGroup, Sampled, bounds, repeated_share, rollout_batch
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import merge
from hen_jax.objectives.advantages import AdvantageConfig
from hen_jax.objectives.policy import (
    KlConfig,
    ObjectiveConfig,
    Tokens,
    aggregated,
    policy_objective,
    value_loss,
)
from hen_jax.steps.lessons import Before, lesson_of
from hen_jax.steps.policy import first_memory, policy_says, policy_step
from hen_jax.steps.policy_config import VALUE, PolicyConfig, ValueConfig
from hen_jax.steps.preference import BASE, REFERENCE
from hen_jax.steps.state import init_state
from hen_jax.training.placement import to_devices

PARTS = tiny(LoraConfig(2, 4.0, ("q", "down")), Execution(remat="none"))
PARAMS, START = stirred(PARTS.adapter, 1), stirred(PARTS.adapter, 2)
FROZEN = {BASE: PARTS.base, REFERENCE: START}
PROMPT, LONGEST, G, B = 9, 6, 2, 16
TEMPERATURE = 0.7
GRPO = PolicyConfig(
    objective=ObjectiveConfig(aggregate="sequence"), kl=KlConfig(0.1), truncated="keep"
)
PPO = PolicyConfig(
    advantage=AdvantageConfig(kind="gae"),
    kl=KlConfig(0.05, "reward"),
    value=ValueConfig(coefficient=0.5),
    epochs=2,
)


def group(seed: int) -> JudgedGroup:
    """A random prompt with two replies, the second cut off."""
    rng = np.random.default_rng(seed)

    def sampled(cut: bool) -> Sampled:
        n = int(rng.integers(2, LONGEST + 1))
        tokens = rng.integers(0, CONFIG.vocab_size, n).astype(np.int32)
        return Sampled(tokens, np.ones(n, bool), rng.normal(-3, 1, n).astype(np.float32), cut)

    prompt = rng.integers(0, CONFIG.vocab_size, rng.integers(2, PROMPT + 1)).astype(np.int32)
    rewards = rng.normal(size=G).astype(np.float32)
    replies = (sampled(False), sampled(True))
    return JudgedGroup(prompt, replies, rewards, rewards[:, None], np.ones(G, bool))


GROUPS = [group(seed) for seed in range(B)]


def rolled(groups=GROUPS, shared=True, valued=False):
    sizes = bounds(PROMPT, LONGEST, G, shared, valued)
    return rollout_batch(groups, sizes, 1, valued), sizes


def with_value(params):
    kernel = 0.3 * jax.random.normal(jax.random.key(5), (CONFIG.width, 1))
    return {**params, VALUE: {"kernel": kernel}}


OPTIMIZER = optax.sgd(0.1)


@functools.cache
def step_of(config, shared, microbatches):
    sizes = bounds(PROMPT, LONGEST, G, shared, config.valued)
    says = policy_says(PARTS.graphdef, config, sizes, TEMPERATURE)
    return jax.jit(policy_step(says, config, sizes, OPTIMIZER, microbatches, ("luck",)))


def stepped(config, shared=True, microbatches=1, mesh=None, groups=GROUPS):
    """The parameters and metrics after one step of plain gradient descent."""
    rollout, _ = rolled(groups, shared, config.valued)
    params, frozen = with_value(PARAMS) if config.valued else PARAMS, FROZEN
    if mesh is not None:
        here = jax.NamedSharding(mesh, PartitionSpec())
        rollout = to_devices(mesh)(rollout)
        params, frozen = jax.device_put((params, frozen), here)
    state = init_state(params, OPTIMIZER, 0, first_memory(config))
    after, metrics = step_of(config, shared, microbatches)(state, frozen, rollout)
    values = {name: float(mean.value) for name, mean in jax.device_get(metrics).items()}
    return jax.device_get(after), values


@pytest.fixture(scope="module")
def grpo():
    return stepped(GRPO)


@pytest.fixture(scope="module")
def ppo():
    return stepped(PPO)


def same(one, other, tolerance=1e-5):
    """Equal parameters and metrics, to rounding."""
    ours, theirs = (flatten(state.params) for state, _ in (one, other))
    for path, leaf in ours.items():
        np.testing.assert_allclose(theirs[path], leaf, atol=tolerance, err_msg=path)
    for name in one[1].keys() - {"sampler_gap_max"}:  # a mean over microbatches of their largest
        value = one[1][name]
        assert other[1][name] == pytest.approx(value, abs=2e-5, rel=1e-4), name


def moved(state, params):
    return max(
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True)
    )


@functools.cache
def says():
    sizes = bounds(PROMPT, LONGEST, G, True, False)
    return jax.jit(policy_says(PARTS.graphdef, GRPO, sizes, TEMPERATURE))


def test_a_change_in_one_reply_leaves_the_others_bit_equal():
    first = GROUPS[0]
    other = first.replies[1]._replace(tokens=(first.replies[1].tokens + 1) % CONFIG.vocab_size)
    changed = first._replace(replies=(first.replies[0], other))
    batches = [rolled([one, *GROUPS[1:]])[0].batch for one in (first, changed)]
    before, after = (np.asarray(says()(PARAMS, FROZEN, batch).log_probs) for batch in batches)
    own = np.asarray(batches[0].segments)[0] == 1
    np.testing.assert_array_equal(before[0, own], after[0, own])
    np.testing.assert_array_equal(before[1:], after[1:])
    assert (before[0] != after[0]).any()


def test_unshared_prompts_eight_devices_and_microbatches_change_no_number(grpo):
    """Of GRPO: all three at once against shared prompts on one device in one piece."""
    assert moved(grpo[0], PARAMS) > 5e-4
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    same(grpo, stepped(GRPO, shared=False, microbatches=2, mesh=mesh))


@pytest.mark.slow
def test_ppo_on_eight_devices_and_in_microbatches_changes_no_number(ppo):
    mesh = make_mesh(MeshConfig(data=8))
    assert np.abs(ppo[0].params[VALUE]["kernel"] - with_value({})[VALUE]["kernel"]).max() > 1e-4
    same(ppo, stepped(PPO, microbatches=2, mesh=mesh))


def test_the_first_ratio_is_exactly_1(grpo, ppo):
    assert grpo[1]["ratio"] == 1.0
    assert grpo[1]["clipped"] == 0.0
    assert ppo[1]["ratio"] != 1.0  # two epochs: of the second it is another


def test_the_log_tells_what_happened(grpo, ppo):
    values = grpo[1]
    assert values["truncated"] == 0.5
    assert values["not_judged"] == 0.0
    lengths = [len(one.tokens) for each in GROUPS for one in each.replies]
    assert values["reply_tokens"] == pytest.approx(np.mean(lengths))
    rewards = np.stack([each.rewards for each in GROUPS])
    assert values["reward"] == values["reward/luck"] == pytest.approx(rewards.mean(), abs=1e-6)
    assert values["spread/luck"] == pytest.approx(rewards.std(), abs=1e-5)
    assert values["kl"] != 0.0
    assert "explained_variance" in ppo[1]
    assert ppo[1]["value_loss"] > 0


def test_log_probabilities_belong_to_the_temperature():
    rollout, _ = rolled()
    batch = rollout.batch

    def logits(params):
        model = merge(PARTS.graphdef, params, PARTS.base)
        return model.logits(model.hidden(batch.tokens, batch.positions, batch.segments))

    scaled = np.asarray(jax.jit(logits)(PARAMS), np.float64) / TEMPERATURE
    log_probs = scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)
    expected = np.take_along_axis(log_probs, np.asarray(batch.targets)[..., None], 2)[..., 0]
    said = says()(PARAMS, FROZEN, batch)
    mask = np.asarray(batch.mask)
    np.testing.assert_allclose(said.log_probs, expected * mask, atol=1e-5)
    entropy = -(np.exp(log_probs) * log_probs).sum(-1)
    np.testing.assert_allclose(said.entropy, entropy * mask, atol=1e-4)


lessons = jax.jit(lesson_of, static_argnames="config")


def lesson(config, groups, before=None):
    rollout, _ = rolled(groups, valued=config.valued)
    zeros = np.zeros(rollout.sampler.shape, np.float32)
    before = before or Before(zeros, zeros, zeros)
    coefficient = jnp.float32(config.kl.coefficient)
    found, watched = lessons(rollout, before, config=config, coefficient=coefficient)
    return jax.device_get(found), {k: float(v.value) for k, v in watched.items()}, rollout


def test_a_cut_reply_is_masked_or_kept_as_is_set_and_never_ended_silently():
    masked, _, rollout = lesson(dataclasses.replace(GRPO, truncated="mask"), GROUPS[:2])
    cut = rollout.batch.segments == 2
    assert (masked.batch.mask[cut] == 0).all()
    assert masked.batch.mask.sum() > 0
    kept, _, _ = lesson(GRPO, GROUPS[:2])
    np.testing.assert_array_equal(kept.batch.mask, rollout.batch.mask)


def test_ppo_bootstraps_where_a_reply_was_cut_and_pays_where_it_ended():
    """Values of 1 everywhere, rewards of 0, no discount: only the ended reply lost something."""
    config = dataclasses.replace(
        PPO,
        advantage=AdvantageConfig(kind="gae", trace=1.0, whiten=False),
        kl=KlConfig(0.0, measure=False),
    )
    groups = [one._replace(rewards=np.zeros(G, np.float32)) for one in GROUPS[:2]]
    rollout, _ = rolled(groups, valued=True)
    zeros = np.zeros(rollout.sampler.shape, np.float32)
    ones = (rollout.batch.segments > 0).astype(np.float32)
    found, _, _ = lesson(config, groups, Before(zeros, zeros, ones))
    trained, segments = rollout.batch.mask > 0, rollout.batch.segments
    np.testing.assert_allclose(found.advantages[trained & (segments == 1)], -1.0)
    np.testing.assert_allclose(found.advantages[trained & (segments == 2)], 0.0)
    np.testing.assert_allclose(found.returns[trained & (segments == 2)], 1.0)
    ended = dataclasses.replace(config, truncated="end")
    found, _, _ = lesson(ended, groups, Before(zeros, zeros, ones))
    np.testing.assert_allclose(found.advantages[trained], -1.0)
    masked = dataclasses.replace(config, truncated="mask")
    found, _, _ = lesson(masked, groups, Before(zeros, zeros, ones))
    assert (found.batch.mask[segments == 2] == 0).all()


def test_ppo_from_rewards_to_loss_is_its_float64_reference():
    """KL in the reward, GAE that knows truncation, whitening, both clips: from scratch."""
    config = dataclasses.replace(
        PPO,
        advantage=AdvantageConfig(kind="gae", gamma=0.98, trace=0.9),
        kl=KlConfig(0.3, "reward"),
    )
    rng = np.random.default_rng(3)
    rollout, _ = rolled(GROUPS[:4], valued=True)
    shape = rollout.sampler.shape
    old, reference, values = (rng.normal(-2, 0.5, shape).astype(np.float32) for _ in range(3))
    now, later = old + 0.3 * rng.normal(size=shape), values + 0.3 * rng.normal(size=shape)
    found, _, _ = lesson(config, GROUPS[:4], Before(old, reference, values))

    places = [  # of each reply: what it drew, and what stands after it
        (
            row,
            np.flatnonzero((rollout.batch.segments[row] == k + 1) & (rollout.batch.mask[row] > 0)),
        )
        for row in range(4)
        for k in range(G)
    ]
    raw, returns = np.zeros(shape), np.zeros(shape)
    for at, (row, own) in enumerate(places):
        cut, earned = rollout.truncated[row, at % G], rollout.rewards[row, at % G]
        following, gained = float(values[row, own[-1] + 1]) if cut else 0.0, 0.0
        for t in own[::-1]:
            reward = -0.3 * (float(old[row, t]) - float(reference[row, t]))
            reward += float(earned) if t == own[-1] else 0.0
            delta = reward + 0.98 * following - float(values[row, t])
            gained = delta + 0.98 * 0.9 * gained
            raw[row, t], following = gained, float(values[row, t])
            returns[row, t] = gained + values[row, t]
    trained = rollout.batch.mask > 0
    white = (raw - raw[trained].mean()) / np.sqrt(raw[trained].var() + 1e-8) * trained
    np.testing.assert_allclose(found.advantages, white, atol=1e-5)
    np.testing.assert_allclose(found.returns, returns, atol=1e-5)

    ratio = np.exp(now - old.astype(np.float64))
    policy = -np.minimum(ratio * white, np.clip(ratio, 0.8, 1.2) * white)[trained].mean()
    near = values + np.clip(later - values, -0.2, 0.2)
    of_values = 0.5 * np.maximum((later - returns) ** 2, (near - returns) ** 2)[trained].mean()
    tokens = Tokens(
        now.astype(np.float32), old, reference, old, 0 * old, found.advantages,
        found.batch.mask, rollout.batch.segments,
    )  # fmt: skip
    loss, _ = policy_objective(tokens, config.objective, config.kl, 0.0, G, LONGEST)
    each, _ = value_loss(later.astype(np.float32), values, found.returns, 0.2)
    own = aggregated(each, found.batch.mask, rollout.batch.segments, config.objective, G, LONGEST)
    assert float(loss.value) == pytest.approx(policy, abs=1e-5)
    assert float(own.value) == pytest.approx(of_values, abs=1e-5)


def test_flat_groups_are_counted_and_masked_if_asked():
    flat = GROUPS[0]._replace(rewards=np.full(G, 0.3, np.float32))
    found, watched, _ = lesson(GRPO, [flat, GROUPS[1]])
    assert watched["zero_spread"] == 0.5
    assert (found.advantages[0] == 0).all()
    assert found.batch.mask[0].sum() > 0
    found, _, _ = lesson(dataclasses.replace(GRPO, flat_groups="mask"), [flat, GROUPS[1]])
    assert found.batch.mask[0].sum() == 0
    assert found.batch.mask[1].sum() > 0


def test_replies_without_a_reward_do_not_train():
    rewards = np.asarray([np.nan, 1.0], np.float32)
    hurt = GROUPS[0]._replace(rewards=rewards, valid=np.isfinite(rewards))
    found, watched, _ = lesson(GRPO, [hurt, GROUPS[1], None])
    assert np.isfinite(jax.tree.leaves(found)[0]).all()
    assert (found.batch.mask[0][found.batch.segments[0] == 1] == 0).all()
    assert watched["not_judged"] == pytest.approx(1 / 4)
    assert found.batch.mask[2].sum() == 0


def test_nothing_that_trains_is_no_update_and_no_nan(ppo):
    nobody = [one._replace(valid=np.zeros(G, bool)) for one in GROUPS]
    state, values = stepped(PPO, groups=nobody)
    assert moved(state, with_value(PARAMS)) == 0.0
    assert all(np.isfinite(value) for value in values.values())


def test_the_rows_of_a_group():
    one = GROUPS[0]._replace(
        prompt=np.asarray([7, 8, 9], np.int32),
        replies=(
            Sampled(np.asarray([1, 2]), np.asarray([1, 1], bool), np.asarray([-1.0, -2.0])),
            Sampled(
                np.asarray([3, 4, 5]),
                np.asarray([1, 0, 1], bool),
                np.asarray([-3.0, 0, -5.0]),
                True,
            ),
        ),
    )
    rollout, sizes = rolled([one])
    assert sizes.reach.prefix == PROMPT - 1
    row = jax.tree.map(lambda x: x[0, :8], rollout.batch)
    assert row.tokens.tolist() == [7, 8, 9, 1, 9, 3, 4, 0]
    assert row.segments.tolist() == [-1, -1, 1, 1, 2, 2, 2, 0]
    assert row.positions.tolist() == [0, 1, 2, 3, 2, 3, 4, 0]
    assert row.targets.tolist()[2:] == [1, 2, 3, 4, 5, 0]
    assert row.mask.tolist() == [0, 0, 1, 1, 1, 0, 1, 0]
    assert rollout.sampler[0, :8].tolist() == [0, 0, -1, -2, -3, 0, -5, 0]
    assert rollout.truncated[0].tolist() == [False, True]
    valued, _ = rolled([one], valued=True)
    row = jax.tree.map(lambda x: x[0, :9], valued.batch)
    assert row.tokens.tolist() == [7, 8, 9, 1, 2, 9, 3, 4, 5]
    assert row.mask.tolist() == [0, 0, 1, 1, 0, 1, 0, 1, 0]


def test_repetition_is_the_share_of_what_was_said_before():
    assert repeated_share("abab", 2) == pytest.approx(1 / 3)
    assert repeated_share("abc", 4) == 0.0
    assert repeated_share([1] * 10) == pytest.approx(6 / 7)

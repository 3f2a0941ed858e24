"""Policy objectives against exact expectations, float64 references and closed forms."""

import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError
from hen_jax.objectives.advantages import (
    AdvantageConfig,
    group_advantages,
    traced_advantages,
    whitened,
)
from hen_jax.objectives.policy import (
    KlConfig,
    ObjectiveConfig,
    Tokens,
    adapted_coefficient,
    aggregated,
    kl_estimate,
    policy_objective,
    value_loss,
)

RNG = np.random.default_rng(0)
in_groups = jax.jit(group_advantages, static_argnames="config")
objective = jax.jit(policy_objective, static_argnames=("config", "kl", "replies", "longest"))
gae = jax.jit(traced_advantages, static_argnames="config")
LOGITS, REFERENCE = RNG.normal(size=5), RNG.normal(size=5)


def group(rewards, valid=None, **settings):
    rewards = np.asarray(rewards, np.float32)
    valid = np.ones(rewards.shape, bool) if valid is None else np.asarray(valid)
    found = in_groups(rewards, valid, config=AdvantageConfig(**settings))
    return jax.tree.map(np.asarray, found)


# --- KL: which estimator has which gradient, in expectation over a categorical, exactly


def exact_gradients():
    """d KL(p, q) / d logits and d KL(q, p) / d logits for p = softmax(LOGITS)."""

    def forward(logits, reference):
        p, q = jax.nn.softmax(logits), jax.nn.softmax(reference)
        return (p * (jnp.log(p) - jnp.log(q))).sum()

    def backward(logits, reference):
        return forward(reference, logits)

    return (np.asarray(jax.jit(jax.grad(f))(LOGITS, REFERENCE)) for f in (forward, backward))


def expected_gradient(estimator, times_ratio):
    """The mean over all tokens of the gradient of `policy_objective`'s KL term, weighted by p."""
    kl = KlConfig(1.0, "loss", estimator, times_ratio)
    return _gradient_of(kl)


def _gradient_of(kl, advantages=None):
    V = len(LOGITS)
    weights = jax.nn.softmax(jnp.asarray(LOGITS, jnp.float32))
    advantages = jnp.zeros((V, 1)) if advantages is None else advantages

    def loss(logits):
        now = jax.nn.log_softmax(logits)[:, None]
        old = jax.lax.stop_gradient(now)
        reference = jax.nn.log_softmax(jnp.asarray(REFERENCE, jnp.float32))[:, None]

        def one(now, old, reference, advantage):
            ones = jnp.ones((1, 1))
            now, old, reference, advantage = (x[None] for x in (now, old, reference, advantage))
            tokens = Tokens(now, old, reference, old, ones, advantage, ones, ones.astype(int))
            return policy_objective(tokens, ObjectiveConfig(), kl, kl.coefficient, 1, 1)[0].total

        return weights @ jax.vmap(one)(now, old, reference, advantages)

    return np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(LOGITS, jnp.float32)))


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("estimator", "times_ratio"), [("k2", False), ("k3", True), ("k1", True)])
def test_these_kl_terms_have_the_exact_gradient(estimator, times_ratio):
    truth, _ = exact_gradients()
    np.testing.assert_allclose(expected_gradient(estimator, times_ratio), truth, atol=2e-6)


def test_k3_alone_is_the_gradient_of_the_other_direction():
    truth, other = exact_gradients()
    found = expected_gradient("k3", False)
    np.testing.assert_allclose(found, other, atol=2e-6)
    assert 0.5 < cosine(found, truth) < 0.999


def test_k1_alone_has_no_gradient_and_is_refused():
    now = jnp.asarray(LOGITS, jnp.float32)
    weights = jax.nn.softmax(now)

    def loss(logits):
        log_probs = jax.nn.log_softmax(logits)
        return (weights * kl_estimate(log_probs, jnp.asarray(REFERENCE, jnp.float32), "k1")).sum()

    np.testing.assert_allclose(jax.grad(loss)(now), 0.0, atol=1e-6)
    with pytest.raises(InputError, match="does not contain the reference"):
        KlConfig(estimator="k1", times_ratio=False)


def test_k1_in_the_reward_has_the_exact_gradient():
    truth, _ = exact_gradients()
    log_p, log_q = (x - np.logaddexp.reduce(x) for x in (LOGITS, REFERENCE))
    penalties = jnp.asarray(-(log_p - log_q), jnp.float32)[:, None]
    found = _gradient_of(KlConfig(0.0, "reward"), penalties)
    np.testing.assert_allclose(found, truth, atol=2e-6)


def test_under_a_mean_over_the_reply_k1_in_the_loss_is_a_gradient_of_length():
    """Replies over {stop, go}: (stop), (go, stop), (go, go), enumerated.

    Of a sum k1 has no expected gradient. Of a mean per reply it has one in which the reference does
    not occur, so it cannot be that of the KL: here it points away from the second reference.
    """
    replies = [(0,), (1, 0), (1, 1)]

    def expected(logits, reference, mean):
        now, then = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
        total = 0.0
        for reply in replies:
            each = sum(now[token] - then[token] for token in reply)
            weight = jnp.exp(sum(now[token] for token in reply))
            total += jax.lax.stop_gradient(weight) * each / (len(reply) if mean else 1)
        return total

    def kl(logits, reference):
        now, then = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
        return sum(
            jnp.exp(sum(now[t] for t in reply)) * sum(now[t] - then[t] for t in reply)
            for reply in replies
        )

    logits = jnp.asarray([0.3, -0.4], jnp.float32)
    one, other = (jnp.asarray(x, jnp.float32) for x in ([-0.5, 0.2], [2.0, -2.0]))
    of_sum, of_mean = (jax.grad(lambda x, r, m=m: expected(x, r, m)) for m in (False, True))
    np.testing.assert_allclose(of_sum(logits, one), 0.0, atol=1e-6)
    wrong = np.asarray(of_mean(logits, one))
    assert np.abs(wrong).max() > 0.01
    np.testing.assert_allclose(of_mean(logits, other), wrong, atol=1e-6)
    assert cosine(wrong, np.asarray(jax.grad(kl)(logits, other))) < 0


def test_estimators_have_the_mean_kl_and_k3_is_never_negative():
    log_p, log_q = (x - np.logaddexp.reduce(x) for x in (LOGITS, REFERENCE))
    p = np.exp(log_p)
    truth = (p * (log_p - log_q)).sum()
    for name in ("k1", "k3"):
        each = np.asarray(kl_estimate(jnp.asarray(log_p), jnp.asarray(log_q), name))
        assert (p * each).sum() == pytest.approx(truth, abs=1e-6)
    assert (each >= 0).all()


# --- advantages


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ddof": 0},
        {"spread": "none"},
        {"spread": "batch"},
        {"baseline": "leave_one_out", "spread": "none"},
    ],
)
def test_group_advantages_sum_to_0_and_are_the_references(settings):
    rewards = RNG.normal(size=(6, 8)).astype(np.float32)
    found = group(rewards, **settings).advantages
    np.testing.assert_allclose(found.sum(axis=1), 0.0, atol=1e-5)
    r = rewards.astype(np.float64)
    centred = r - r.mean(axis=1, keepdims=True)
    if settings.get("baseline"):
        centred = r - (r.sum(axis=1, keepdims=True) - r) / 7
    spread = {
        "group": r.std(axis=1, ddof=settings.get("ddof", 1), keepdims=True) + 1e-4,
        "batch": r.std(ddof=1) + 1e-4,
        "none": 1.0,
    }[settings.get("spread", "group")]
    np.testing.assert_allclose(found, centred / spread, rtol=1e-4, atol=1e-5)


def test_with_two_replies_the_two_definitions_of_spread_differ_by_the_root_of_2():
    rewards = [[0.0, 1.0]]
    ratio = group(rewards, ddof=0, floor=0.0).advantages / group(rewards, floor=0.0).advantages
    np.testing.assert_allclose(ratio, math.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_one_outlier_among_equal_rewards_stays_small(scale):
    """Leave-one-out spread gave it 4,000 elsewhere."""
    for settings in ({}, {"ddof": 0}, {"floor": 0.0}):
        found = group([np.asarray([0.35] * 7 + [0.95]) * scale], **settings).advantages
        assert np.abs(found).max() < 10


def test_equal_rewards_teach_nothing_and_are_counted():
    rewards = [[0.35] * 8, [0.1 + 0.2] * 4 + [0.3] * 4, list(range(8))]
    found = group(rewards)
    assert found.flat.tolist() == [True, True, False]
    assert (found.advantages[:2] == 0).all()
    assert found.counted.all()


def test_replies_without_a_reward_count_nowhere():
    rewards = [[1.0, 2.0, np.nan, 3.0], [5.0, 1.0, 1.0, 1.0]]
    valid = [[1, 1, 0, 1], [1, 0, 0, 0]]
    found = group(np.nan_to_num(rewards), np.asarray(valid, bool), spread="none")
    np.testing.assert_allclose(found.advantages, [[-1, 0, 0, 1], [0, 0, 0, 0]], atol=1e-6)
    assert found.counted.tolist() == [True, False]


def test_leave_one_out_over_the_groups_spread_is_refused():
    with pytest.raises(InputError, match=r"advantage\.spread='none'"):
        AdvantageConfig(baseline="leave_one_out")


def reference_gae(rewards, values, actions, after, gamma, trace):
    """Float64, one document: `actions` are the positions of the policy's tokens in order."""
    gained, following, found = 0.0, after, {}
    for t in reversed(actions):
        gained = rewards[t] + gamma * following - values[t] + gamma * trace * gained
        following, found[t] = values[t], gained
    return found


def test_traced_advantages_know_who_was_cut_off():
    """A row of three documents: one ended, one cut off, one of two turns with a user between."""
    segments = np.asarray([[-1, -1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 0, 0]])
    mask = np.asarray([[0, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]], np.float32)
    cut = np.zeros(segments.shape, bool)
    cut[0, 8] = True
    rewards, values = (RNG.normal(size=segments.shape).astype(np.float32) for _ in range(2))
    config = AdvantageConfig(kind="gae", gamma=0.97, trace=0.9, whiten=False)
    found = traced_advantages(*map(jnp.asarray, (rewards, values, mask, segments, cut)), config)
    expected = np.zeros(segments.shape)
    for actions, after in (([2, 3, 4], 0.0), ([6, 7], values[0, 8]), ([9, 10, 13], 0.0)):
        one = reference_gae(rewards[0], values[0], actions, after, 0.97, 0.9)
        expected[0, list(one)] = list(one.values())
    np.testing.assert_allclose(found.advantages, expected, atol=1e-5)
    np.testing.assert_allclose(found.returns, np.where(mask > 0, expected + values, 0), atol=1e-5)


def test_without_discount_returns_of_an_ended_reply_are_the_rewards_to_come():
    segments, mask = np.ones((1, 5), int), np.asarray([[1, 1, 1, 1, 0]], np.float32)
    rewards = np.asarray([[0.0, 0.5, 0.0, 2.0, 9.0]], np.float32)
    values = RNG.normal(size=(1, 5)).astype(np.float32)
    config = AdvantageConfig(kind="gae", gamma=1.0, trace=1.0)
    found = gae(rewards, values, mask, segments, np.zeros((1, 5), bool), config=config)
    np.testing.assert_allclose(found.returns[0, :4], [2.5, 2.5, 2.0, 2.0], atol=1e-5)
    kept = np.asarray(found.advantages)[mask > 0]
    assert kept.mean() == pytest.approx(0, abs=1e-6)
    assert kept.std() == pytest.approx(1, abs=1e-4)


def test_whitening_is_over_all_that_counts():
    x, mask = RNG.normal(size=(3, 7)), RNG.integers(0, 2, (3, 7)).astype(np.float32)
    found = np.asarray(whitened(jnp.asarray(x, jnp.float32), jnp.asarray(mask)))
    kept = x[mask > 0]
    np.testing.assert_allclose(found[mask > 0], (kept - kept.mean()) / kept.std(), atol=1e-5)
    assert (found[mask == 0] == 0).all()
    assert (np.asarray(whitened(jnp.ones((2, 2)), jnp.ones((2, 2)))) == 0).all()
    assert (np.asarray(whitened(jnp.ones((2, 2)), jnp.zeros((2, 2)))) == 0).all()


# --- the objective

SEGMENTS = np.asarray([[-1, 1, 1, 1, 2, 2, 0], [-1, 1, 2, 2, 2, 2, 2]])
MASK = np.where(SEGMENTS > 0, 1.0, 0.0)
MASK[1, 3] = 0.0  # another speaker's


def tokens(seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    old = rng.normal(-2, 0.5, MASK.shape)
    now, reference = (old + spread * rng.normal(size=MASK.shape) for _ in range(2))
    per_reply = rng.normal(size=(2, 2))
    A = np.where(SEGMENTS > 0, np.take_along_axis(per_reply, np.clip(SEGMENTS - 1, 0, 1), 1), 0)
    entropy = rng.uniform(0.5, 2, MASK.shape)
    return [np.float64(x) for x in (now, old, reference, old + 0.1, entropy, A)]


def loss_of(config, kl=KlConfig(0.0), coefficient=0.0, parts=None):
    arrays = [np.asarray(x, np.float32) for x in (parts or tokens())]
    one = Tokens(*arrays, jnp.asarray(MASK, jnp.float32), jnp.asarray(SEGMENTS))
    mean, metrics = jax.device_get(
        objective(one, config=config, kl=kl, coefficient=coefficient, replies=2, longest=6)
    )
    return float(mean.value), {name: float(m.value) for name, m in metrics.items()}


def replies():
    return [
        (row, [t for t in range(MASK.shape[1]) if SEGMENTS[row, t] == k and MASK[row, t]])
        for row in range(2)
        for k in (1, 2)
    ]


def reference_loss(config, kl=KlConfig(0.0), coefficient=0.0):
    """The same in float64, reply by reply and token by token."""
    now, old, reference, sampler, entropy, A = tokens()
    of_replies = []
    for row, places in replies():
        each = []
        mean = np.mean([now[row, t] - old[row, t] for t in places])
        for t in places:
            own = math.exp(now[row, t] - old[row, t])
            ratio = math.exp(mean) if config.ratio == "sequence" else own
            a = A[row, t]
            if config.surrogate == "cispo":
                value = -min(ratio, config.cap) * a * now[row, t]
            elif config.surrogate == "plain":
                value = -ratio * a
            else:
                clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
                value = -min(ratio * a, clipped * a)
                if config.dual_clip and a < 0:
                    value = min(value, -config.dual_clip * a)
            if config.importance_cap:
                value *= min(math.exp(old[row, t] - sampler[row, t]), config.importance_cap)
            d = now[row, t] - reference[row, t]
            k = {"k1": d, "k2": d * d / 2, "k3": math.exp(-d) - 1 + d}[kl.estimator]
            value += coefficient * k * (own if kl.times_ratio else 1)
            each.append(value - config.entropy * entropy[row, t])
        of_replies.append(each)
    flat = [value for each in of_replies for value in each]
    if config.aggregate == "token":
        return sum(flat) / len(flat)
    if config.aggregate == "sequence":
        return np.mean([np.mean(each) for each in of_replies])
    return sum(flat) / (len(of_replies) * (config.constant or 6))


GRPO = ObjectiveConfig(aggregate="sequence")
OBJECTIVES = {
    "ppo": ObjectiveConfig(),
    "grpo": GRPO,
    "dr_grpo": ObjectiveConfig(aggregate="constant"),
    "dapo": ObjectiveConfig(clip_high=0.28),
    "gspo": ObjectiveConfig(ratio="sequence", clip_low=3e-4, clip_high=4e-4, aggregate="sequence"),
    "cispo": ObjectiveConfig(surrogate="cispo", cap=1.3),
    "rloo": ObjectiveConfig(surrogate="plain", aggregate="constant", constant=4),
    "dual": ObjectiveConfig(dual_clip=1.4),
    "weighted": ObjectiveConfig(importance_cap=0.95, entropy=0.01),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_the_float64_references(name):
    config, kl = OBJECTIVES[name], KlConfig(0.3, estimator="k3")
    assert loss_of(config)[0] == pytest.approx(reference_loss(config), abs=1e-5)
    found, _ = loss_of(config, kl, 0.3)
    assert found == pytest.approx(reference_loss(config, kl, 0.3), abs=1e-5)


def test_microbatches_and_devices_add_up_for_every_objective():
    """Sums and counts of the rows' parts, and rows over eight devices, give the whole's loss."""
    rows = [np.tile(np.asarray(x, np.float32), (4, 1)) for x in tokens()]
    rows[0] += 0.1 * np.arange(8, dtype=np.float32)[:, None]
    mask, segments = np.tile(MASK, (4, 1)).astype(np.float32), np.tile(SEGMENTS, (4, 1))

    def losses(one):
        kl = KlConfig(0.3)
        return {
            name: policy_objective(one, config, kl, 0.3, 2, 6)[0]
            for name, config in OBJECTIVES.items()
        }

    run, whole = jax.jit(losses), Tokens(*rows, mask, segments)
    over = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    one, spread = run(whole), run(jax.device_put(whole, over))
    halves = [run(jax.tree.map(lambda x, at=at: x[at::2], whole)) for at in range(2)]
    for name in OBJECTIVES:
        expected = float(one[name].value)
        summed = jax.tree.map(operator.add, halves[0][name], halves[1][name])
        assert float(summed.value) == pytest.approx(expected, rel=1e-5)
        assert float(spread[name].value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("times_ratio", [True, False])
def test_kl_terms_are_the_float64_references(estimator, times_ratio):
    if estimator == "k1" and not times_ratio:
        return
    kl = KlConfig(0.7, "loss", estimator, times_ratio)
    found, _ = loss_of(GRPO, kl, 0.7)
    assert found == pytest.approx(reference_loss(GRPO, kl, 0.7), abs=1e-5)


def test_where_nothing_moved_the_ratio_is_1_and_nothing_is_clipped():
    _, old, reference, _, entropy, A = tokens()
    for config in OBJECTIVES.values():
        _, metrics = loss_of(config, parts=(old, old, reference, old, entropy, A))
        assert metrics["ratio"] == 1.0
        assert metrics["clipped"] == 0.0
    assert loss_of(GRPO)[1]["clipped"] > 0


def test_a_cap_of_cispo_leaves_each_token_its_gradient():
    """Where PPO's clip cuts the gradient off, CISPO's is the capped ratio times the advantage."""
    parts = [jnp.asarray(x, jnp.float32) for x in tokens(spread=2.0)]

    def gradient(config):
        def loss(now):
            one = Tokens(now, *parts[1:], jnp.asarray(MASK, jnp.float32), jnp.asarray(SEGMENTS))
            return policy_objective(one, config, KlConfig(0.0), 0.0, 2, 6)[0].total

        return np.asarray(jax.jit(jax.grad(loss))(parts[0]))

    trained = MASK > 0
    assert (gradient(ObjectiveConfig())[trained] == 0).any()
    found = gradient(ObjectiveConfig(surrogate="cispo", cap=5.0))
    ratio = np.minimum(np.exp(tokens(spread=2.0)[0] - tokens(spread=2.0)[1]), 5.0)
    np.testing.assert_allclose(found[trained], (-ratio * tokens()[5])[trained], rtol=1e-4)


def test_a_log_ratio_beyond_the_clamp_is_counted():
    parts = tokens()
    parts[2] = parts[0] + 30.0
    found, metrics = loss_of(GRPO, KlConfig(0.1), 0.1, parts)
    assert metrics["kl_clamped"] == 1.0
    assert math.isfinite(found)


def test_no_token_that_trains_is_no_division_by_0():
    zeros = jnp.zeros((2, 7))
    for config in OBJECTIVES.values():
        mean = aggregated(zeros + jnp.nan, zeros, jnp.asarray(SEGMENTS), config, 2, 6)
        assert float(mean.value) == 0.0


def test_the_worked_example_of_aggregation():
    segments = jnp.asarray([[1, 2, 2, 2]])
    each, mask = jnp.asarray([[4.0, 0.0, 0.0, 0.0]]), jnp.ones((1, 4))
    for aggregate, expected in (("token", 1.0), ("sequence", 2.0), ("constant", 0.25)):
        config = ObjectiveConfig(aggregate=aggregate)
        assert float(aggregated(each, mask, segments, config, 2, 8).value) == expected


def test_the_value_loss_is_ppos():
    values, old, returns = (RNG.normal(size=(2, 3)).astype(np.float32) for _ in range(3))
    found, clipped = value_loss(*map(jnp.asarray, (values, old, returns)), 0.2)
    near = old + np.clip(values - old, -0.2, 0.2)
    plain, limited = (values - returns) ** 2, (near - returns) ** 2
    np.testing.assert_allclose(found, 0.5 * np.maximum(plain, limited), rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(clipped) > 0, limited > plain)
    unlimited, _ = value_loss(*map(jnp.asarray, (values, old, returns)), 0.0)
    np.testing.assert_allclose(unlimited, 0.5 * plain, rtol=1e-5)


def test_an_adaptive_coefficient_follows_its_target():
    config = KlConfig(0.1, target=4.0, horizon=10.0)

    def after(kl):
        return float(adapted_coefficient(jnp.float32(0.1), jnp.float32(kl), config))

    assert after(4.0) == pytest.approx(0.1)
    assert after(40.0) == pytest.approx(0.1 * 1.02)
    assert after(0.0) == pytest.approx(0.1 * 0.98)
    assert after(float("nan")) == pytest.approx(0.1)
    assert float(adapted_coefficient(jnp.float32(0.1), jnp.float32(9.0), KlConfig(0.1))) == (
        pytest.approx(0.1)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObjectiveConfig(dual_clip=1.1), "more than 1 \\+ clip_high"),
        (lambda: ObjectiveConfig(clip_low=-0.1), "clip_low is -0.1"),
        (lambda: KlConfig(0.0, target=3.0), "give it a start"),
        (lambda: AdvantageConfig(trace=1.5), "trace is 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()

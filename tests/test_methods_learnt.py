"""What methods learn or compute: identifiers, the product reward, the contrastive loss, k-centre,
selection, drift and personality."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.core.errors import InputError
from hen_jax.evaluation.rewards import Answered
from hen_jax.methods import k_centre as centres_of
from hen_jax.methods.drift import changed_shares, divergence, report_rows
from hen_jax.methods.emotion_models import EmotionModel, likeliest_labels
from hen_jax.methods.epitome import (
    HEADS,
    REWARD_MECHANISMS,
    emp_f1,
    identify_with,
    level_reward,
    product_reward,
    read_joined_epitome,
)
from hen_jax.methods.identified_emotions import identified_emotions
from hen_jax.methods.identifier import (
    IdentifierConfig,
    head_probabilities,
    initial,
    predicted_labels,
    word_weights,
)
from hen_jax.methods.identifier_training import (
    LabelledReply,
    TrainingConfig,
    heads_of,
    load_identifier,
    save_identifier,
    train_identifier,
)
from hen_jax.methods.k_centre import covering_radius, k_centre
from hen_jax.methods.label_scores import accuracy, label_f1, label_macro_f1
from hen_jax.methods.personality import KEEPS, personality, reaction, turn_traits
from hen_jax.methods.selection import (
    above,
    apart_from_seed,
    diverse,
    hashed_embedding,
    quality,
    sample_turns,
    sweep_thresholds,
)
from hen_jax.objectives.contrastive import contrastive_loss, helpful_pairs, reply_scores
from hen_jax.text.conversation import Conversation, Message

SMALL = IdentifierConfig(buckets=128, width=16, hidden=8, context=8, reply=8)
SAID = ("It rains.", "I lost my cat.", "The exam is over.")
WARM = {"0": "Right.", "1": "Sorry.", "2": "Oh no, poor you."}
ASKS = {"0": "Bye.", "1": "How?", "2": "How is it for you now?"}
ROWS = [
    LabelledReply(context, f"{WARM[er]} {ASKS[ex]}", {"ER": er, "IP": ip, "EX": ex}, context)
    for context, er, ex in itertools.product(SAID, WARM, ASKS)
    for ip in ("2" if context == SAID[1] else "0",)
]
"""The level of interpretation depends on the context alone; `1` of it is never seen."""


@pytest.fixture(scope="module")
def trained():
    return train_identifier(ROWS, HEADS, SMALL, TrainingConfig(40, 9, 2e-2))


def test_an_identifier_learns_all_heads_of_the_reply_and_of_the_context(trained):
    assert predicted_labels(trained, [(row.context, row.reply) for row in ROWS]) == [
        dict(row.labels) for row in ROWS
    ]
    untrained = initial(SMALL, HEADS)
    probs = head_probabilities(untrained, [(ROWS[0].context, ROWS[0].reply)])
    assert max(p.max() for p in probs.values()) < 0.6


def test_padding_and_rows_do_not_change_what_is_identified(trained):
    pairs = [(row.context, row.reply) for row in ROWS]
    alone, together = (head_probabilities(trained, pairs[:1], rows=n)["ER"] for n in (1, 4))
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(
        head_probabilities(trained, pairs[:3], rows=4)["EX"][2:],
        head_probabilities(trained, pairs[2:3], rows=4)["EX"],
        atol=1e-5,
    )


def test_an_identifier_is_read_back_as_it_was_written(trained, tmp_path):
    save_identifier(tmp_path / "it", trained, {})
    again = load_identifier(tmp_path / "it")
    assert again.config == trained.config
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
    weights = tmp_path / "it" / "identifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="SHA-256"):
        load_identifier(tmp_path / "it")
    with pytest.raises(InputError, match="holds no identifier"):
        load_identifier(tmp_path)


def test_words_that_decide_are_those_of_the_label(trained):
    found = word_weights(trained, (SAID[0], "Oh no, poor you. Bye."), "ER")
    assert "bye" not in [word for word, _ in found[:2]]
    assert {word for word, _ in found} & {"oh", "no", "poor", "you"}
    assert all(weight > 0 for _, weight in found)


def test_rows_without_anything_to_tell_apart_are_refused():
    with pytest.raises(InputError, match="head 'ER' has the label '0' alone"):
        heads_of([LabelledReply("a", "b", {"ER": "0"})])
    with pytest.raises(InputError, match="no row has a label"):
        heads_of([LabelledReply("a", "b", {})])
    with pytest.raises(InputError, match="ER: '9'; allowed: 0, 1, 2"):
        train_identifier([LabelledReply("a", "b", {"ER": "9"})], HEADS, SMALL)


def test_an_identifier_of_emotions_is_a_small_model_for_hef():
    said = {"sad": "I cry all day.", "glad": "We won the cup!"}
    rows = [LabelledReply("", text, {"emotion": label}, label) for label, text in said.items()]
    model = identified_emotions(train_identifier(rows, None, SMALL, TrainingConfig(60, 2, 2e-2)))
    asked = (Message("user", "I cry all day."),)
    assert likeliest_labels(model, asked, 1) == ["sad"]
    assert model.emotion_probs(asked).sum() == pytest.approx(1, abs=1e-5)
    assert model.cause_words(asked)[0][0] in "i cry all day"
    with pytest.raises(InputError, match="hef needs 'emotion'"):
        identified_emotions(initial(SMALL, HEADS))


TARGETS = [{"ER": "2", "IP": "0", "EX": "1"}]


def oracle(pairs):
    return {
        name: np.eye(3)[[int(TARGETS[0][name])]].repeat(len(pairs), axis=0)
        for name in REWARD_MECHANISMS
    }


def uniform(pairs):
    return {name: np.full((len(pairs), 3), 1 / 3) for name in REWARD_MECHANISMS}


def test_the_product_reward_of_an_oracle_is_1_and_of_knowing_nothing_1_27():
    assert product_reward(oracle([("", "")]), TARGETS).tolist() == [1.0]
    assert product_reward(uniform([("", "")]), TARGETS) == pytest.approx([1 / 27])
    each = {"ER": [0.1, 0.2, 0.7], "IP": [0.6, 0.2, 0.2], "EX": [0.3, 0.5, 0.2]}
    probs = {name: np.array([p]) for name, p in each.items()}
    assert product_reward(probs, TARGETS) == pytest.approx([0.7 * 0.6 * 0.5])
    entropy = -sum(math.log(x) for x in (0.7, 0.6, 0.5))
    assert product_reward(probs, TARGETS) == pytest.approx([math.exp(-entropy)])


def test_the_reward_goes_by_the_record_or_else_by_the_reference():
    prompt = (Message("user", "It rains."),)
    columns = {REWARD_MECHANISMS[name]: level for name, level in TARGETS[0].items()}
    given = Answered(prompt, "Oh.", {"id": "a", **columns})
    by_reference = Answered(prompt, "Oh.", {"id": "b", "reference": "Oh no."})
    neither = Answered(prompt, "Oh.", {"id": "c"})
    found = level_reward(oracle)([given, by_reference, neither])
    assert found[:2] == [1.0, 1.0]
    assert math.isnan(found[2])
    other = {**columns, REWARD_MECHANISMS["ER"]: "0"}
    assert level_reward(oracle)([Answered(prompt, "Oh.", other)]) == [0.0]
    for level in ("3", "weak", 1.0):
        odd = Answered(prompt, "Oh.", {"id": "d", **columns, REWARD_MECHANISMS["IP"]: level})
        with pytest.raises(InputError, match=r"record d: interpretations: .*; allowed: 0, 1, 2"):
            level_reward(oracle)([given, odd])
    with pytest.raises(InputError, match="an identifier of emotion; the reward needs one of ER"):
        identify_with(initial(SMALL, {"emotion": ("a", "b")}))


def test_a_policy_that_is_rewarded_by_levels_learns_them_and_stays_near_its_reference():
    """A bandit of 27 replies, one of each triple of levels; a policy gradient with a KL penalty."""
    triples = list(itertools.product("012", repeat=3))
    probs = {name: np.asarray([[0.9 if level == found[at] else 0.05 for level in "012"]
                               for found in triples])
             for at, name in enumerate(REWARD_MECHANISMS)}  # fmt: skip
    rewards = jnp.asarray(product_reward(probs, TARGETS * 27))
    start = jnp.zeros(27)

    def value(logits):
        log_p = jax.nn.log_softmax(logits)
        kl = (jnp.exp(log_p) * (log_p - jax.nn.log_softmax(start))).sum()
        return jnp.exp(log_p) @ rewards - 0.02 * kl, (jnp.exp(log_p) @ rewards, kl)

    step = jax.jit(jax.value_and_grad(value, has_aux=True))
    first, logits = step(start)[0][1][0], start
    for _ in range(300):
        (_, (reward, kl)), slope = step(logits)
        logits += 8.0 * slope
    assert first < 0.2 < 0.8 * rewards.max() < reward
    assert kl < math.log(27)


def test_emp_f1_of_the_reference_itself_is_1():
    levels = [{"ER": a, "IP": b, "EX": "0"} for a in "012" for b in "012"]
    found = emp_f1(levels, levels)
    assert (found["ER"], found["IP"]) == (1.0, 1.0)
    assert found["EX"] == pytest.approx(1 / 3)  # two of its levels are never there
    assert found["macro"] == pytest.approx(7 / 9)


def test_f1_by_hand():
    gold, given = list("aabbc"), list("abbbb")
    assert accuracy(gold, given) == 0.6
    assert label_f1(gold, given, "a") == pytest.approx(2 / 3)  # 1 right of 1 given, 2 there
    assert label_f1(gold, given, "b") == pytest.approx(4 / 6)
    assert label_f1(gold, given, "c") == 0.0
    assert label_macro_f1(gold, given, "abc") == pytest.approx((2 / 3 + 2 / 3) / 3)
    assert math.isnan(accuracy([], []))


def test_epitome_files_are_joined(tmp_path):
    head = "sp_id,rp_id,seeker_post,response_post,level,rationales\n"
    (tmp_path / "er.csv").write_text(head + "1,2,Hi there.,Oh.,2,Oh.\n1,3,Hi there.,Hm.,0,\n")
    (tmp_path / "ip.csv").write_text(head + "1,2,Hi there.,Oh.,1,\n")
    one, two = read_joined_epitome({"ER": tmp_path / "er.csv", "IP": tmp_path / "ip.csv"})
    assert one == LabelledReply("Hi there.", "Oh.", {"ER": "2", "IP": "1"}, "1")
    assert two.labels == {"ER": "0"}
    (tmp_path / "ex.csv").write_text(head + "1,2,Hi there.,Oh.,3,\n")
    with pytest.raises(InputError, match=r"ex\.csv:2:level: 3; allowed: a number from 0 to 2"):
        read_joined_epitome({"EX": tmp_path / "ex.csv"})


def test_the_contrastive_loss_by_hand():
    probs = np.array([[0.4, 0.6, 0.0], [0.2, 0.0, 0.0], [0.4, 0.4, 0.4]], np.float32)
    mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    log_probs, scored = np.log(np.maximum(probs, 1e-9)), jax.jit(reply_scores, static_argnums=2)
    scores = scored(log_probs, mask, "base")
    assert scores.tolist() == pytest.approx([0.5, 0.2, 0.4])
    wins = helpful_pairs(jnp.array([1, 1, 0]))
    loss = jax.jit(lambda s, w: contrastive_loss(s, w, 0.1))(scores[None], wins[None])
    assert float(loss.value) == pytest.approx((0.0 + 0.3) / 2)
    logs = scored(log_probs, mask, "log")
    assert float(logs[0]) == pytest.approx(math.log(0.24) / 2)


def test_equal_labels_give_no_contrastive_loss_and_gradients_point_the_right_way():
    scores = jnp.array([[0.2, 0.5], [0.9, 0.1]])
    loss = jax.jit(lambda s, w: contrastive_loss(s, w, 0.01))
    equal = loss(scores, helpful_pairs(jnp.array([[1, 1], [0, -1]])))
    assert (float(equal.total), float(equal.count)) == (0.0, 0.0)
    wins = helpful_pairs(jnp.array([[1, 0], [1, 0]]))
    slope = jax.jit(jax.grad(lambda s: loss(s, wins).total))(scores)
    assert slope.tolist() == [[-1.0, 1.0], [0.0, 0.0]]  # the second pair is apart already


def test_greedy_centres_are_those_of_numpy_and_within_twice_the_optimum():
    random = np.random.default_rng(3)
    for seed in range(5):
        points = random.normal(size=(12, 3)).astype(np.float32)
        found = k_centre(points, 3, seed)
        assert found.tolist() == greedy(points, 3, seed)
        best = min(covering_radius(points, np.array(chosen))
                   for chosen in itertools.combinations(range(12), 3))  # fmt: skip
        assert best <= covering_radius(points, found) <= 2 * best
    clustered = random.normal(size=(200, 4)) + 20 * random.integers(0, 3, (200, 1))
    chosen = [random.choice(200, 8, replace=False) for _ in range(20)]
    mean = np.mean([covering_radius(clustered, one) for one in chosen])
    assert covering_radius(clustered, k_centre(clustered, 8)) < mean


@pytest.mark.parametrize("offered", [1, 5, 64])
@pytest.mark.parametrize(
    "kind", ["float64", "nearly alike", "far from the origin", "duplicates", "tiny", "huge"]
)
def test_float32_decides_no_centre(monkeypatch, kind, offered):
    """Points that float32 cannot tell apart, with few on offer: the centres of float64."""
    monkeypatch.setattr(centres_of, "_OFFERED", offered)
    random = np.random.default_rng(5)
    points = random.normal(size=(300, 6))
    if kind == "nearly alike":
        points = points / np.linalg.norm(points, axis=1, keepdims=True) + 1e-9 * points
        points = np.concatenate([points, points * (1 + 1e-8)])
    if kind == "far from the origin":
        points += 3e4
    if kind in ("tiny", "huge"):
        points *= 1e-20 if kind == "tiny" else 1e20
    if kind == "duplicates":
        points = np.repeat(np.round(points[:80] * 4), 3, axis=0)
    assert k_centre(points, 60, 7).tolist() == greedy(points, 60, 7)


def test_a_radius_by_hand():
    points = np.asarray([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert covering_radius(points, np.asarray([0])) == pytest.approx(5)
    assert covering_radius(points, np.asarray([0, 1])) == pytest.approx(1)


def greedy(points, k, first):
    """Gonzalez's loop in float64."""
    points, chosen = points.astype(float), [first]
    nearest = ((points - points[first]) ** 2).sum(axis=1)
    for _ in range(k - 1):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return chosen


def test_centres_of_points_that_are_alike_end():
    assert k_centre(np.ones((3, 2), np.float32), 3, 1).tolist() == [1, 0, 0]
    assert k_centre(np.zeros((3, 2)), 1, 2).tolist() == [2]


def test_a_point_that_is_no_number_is_refused():
    for number in (math.nan, math.inf):
        points = np.eye(4)
        points[2, 1] = number
        with pytest.raises(InputError, match="point 2 of 4 holds a number that is not finite"):
            k_centre(points, 2)


TURNS = tuple(Message(role, f"{role} {n}") for n in range(4) for role in ("user", "assistant"))


def test_a_sampled_reply_follows_what_is_shown():
    found = sample_turns([(str(n), Conversation(TURNS)) for n in range(40)])
    assert {len(one.shown) for one in found} == {3, 5, 7}  # 1 to 3 rounds, and what is said then
    short = sample_turns([(str(n), Conversation(TURNS[:4])) for n in range(9)])
    assert {len(one.shown) for one in short} == {3}
    assert len(sample_turns([("a", Conversation(TURNS[:2]))])[0].shown) == 1
    for one in found:
        assert one.reply == TURNS[len(one.shown)].content
    assert sample_turns([("7", Conversation(TURNS))]) == [found[7]]
    assert sample_turns([("a", Conversation(TURNS[:1]))]) == []


def test_selection_keeps_what_is_good_and_apart():
    samples = sample_turns([(str(n), Conversation(TURNS)) for n in range(9)])
    kept = apart_from_seed(samples, ["assistant 1"])
    assert {samples[at].reply for at in kept.places} == {
        one.reply for one in samples if one.reply != "assistant 1"
    }
    assert len({samples[at].reply for at in kept.places}) == len(kept.places)
    scores = quality(np.eye(3), np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0.0]]))
    assert scores.tolist() == pytest.approx([100, 100 / math.sqrt(2), 0])
    assert above(scores, 70).places == (0, 1)
    counts = [kept for _, kept, _ in sweep_thresholds(scores, range(0, 101, 5))]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (3, 1)
    assert len(diverse(np.eye(10, dtype=np.float32), 0.3).places) == 3
    with pytest.raises(InputError, match="a sampling share of 0"):
        diverse(np.eye(2), 0.0)


def test_a_hashed_embedding_is_near_for_shared_words():
    one, near, far, empty = hashed_embedding()(
        ["my cat is ill", "my cat is ill today", "we won the cup", "..."]
    )
    assert one @ one == pytest.approx(1)
    assert one @ near > 0.6 > 0.2 > abs(one @ far)
    assert not empty.any()


def test_drift_by_hand():
    rows = {
        row.what: row for row in report_rows(["She cried.", "I can only imagine."], ["He ran."])
    }
    assert (rows["mentions women"].seed, rows["mentions women"].now) == (0.5, 0.0)
    assert (rows["mentions men"].seed, rows["mentions men"].now) == (0.0, 1.0)
    assert math.isnan(rows["mentions men"].change)
    assert rows["holds a formula"].seed == 0.5
    assert rows["words a text"].seed == 3.0
    assert divergence(["a b"], ["b a"]) == 0.0
    assert divergence(["a"], ["b"]) == pytest.approx(1.0)
    assert divergence(["a a b b"], ["a a a b"]) == pytest.approx(
        0.5 * (0.5 * math.log2(0.5 / 0.625) + 0.5 * math.log2(0.5 / 0.375)
               + 0.75 * math.log2(0.75 / 0.625) + 0.25 * math.log2(0.25 / 0.375))
    )  # fmt: skip


def test_a_share_has_changed_only_beyond_chance():
    """6 of 30 against none is P 0.024 by itself, and nothing among nine shares; 12 of 30 is."""
    seed = ["Rain again."] * 30
    for count, found in ((6, []), (12, ["mentions women"])):
        now = ["She left."] * count + ["Rain again."] * (30 - count)
        assert [row.what for row in changed_shares(seed, now)] == found
    [row] = changed_shares(seed, ["She left."] * 30)
    assert (row.seed, row.now) == (0, 1)


def test_a_personality_changes_with_each_turn_and_one_turn_is_itself():
    said = ["I am so worried, I panic.", "All is calm and relaxed now."]
    messages = [Message("user", text) for text in said]
    for space in ("big5", "mbti"):
        one, both = personality(messages[:1], space), personality(messages, space)
        first, second = (turn_traits(text, space) for text in said)
        np.testing.assert_allclose(one.now, first)
        np.testing.assert_allclose(both.now, (KEEPS * first + second) / (KEEPS + 1))
        np.testing.assert_allclose(both.states[0], one.now)
    assert turn_traits(said[0], "big5")[4] > 0.9
    assert personality([], "big5").now.tolist() == [0.0] * 5
    model = EmotionModel(("a", "b"), lambda messages: np.array([0.8, 0.2]), lambda messages: [])
    assert reaction(messages, model).tolist() == pytest.approx([0.3, -0.3])


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", float("nan")), ("learning_rate", float("inf")), ("seed", -1), ("epochs", 0)],
)
def test_settings_that_train_nothing_are_refused(field, value):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')} is"):
        TrainingConfig(**{field: value})

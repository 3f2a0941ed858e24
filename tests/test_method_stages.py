"""What methods train: rows of candidates and features, steps of Muffin and PECER, EBG's masks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny
from tiny_run import config as run_config
from tiny_run import read as read_config
from tiny_run import run
from tiny_tokenizer import CHATML_TEMPLATE, tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import make_mesh
from hen_jax.data.candidates import candidate_rows, parse_candidates
from hen_jax.data.featured import featured, featured_batch, read_features
from hen_jax.data.preference_batches import preference_batch, preference_bounds
from hen_jax.data.schemas import read_documents
from hen_jax.methods import ebg
from hen_jax.methods.emotions import HED_LABELS
from hen_jax.models.decoder import merge
from hen_jax.models.soft_prefix import PrefixConfig, SoftPrefix
from hen_jax.recipes.policy_reward_source import Circumstance, RewardSource
from hen_jax.recipes.policy_rewards import terms
from hen_jax.recipes.table import stage_of
from hen_jax.runs import train
from hen_jax.steps.muffin import MuffinConfig, muffin_loss
from hen_jax.text.chat import render
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.metrics import read_metrics

GOLD, GOOD, BAD = "I hear you.", "That is hard.", "Try harder."
ROW = {"id": "a", "prompt": "I failed.", "gold": GOLD, "candidates": [GOOD, BAD, GOOD, GOLD],
       "helpful": [None, 0, 1, 1]}  # fmt: skip


@pytest.fixture(scope="module")
def chat():
    tokenizer = tiny_tokenizer(CHATML_TEMPLATE)
    return ChatTokenizer(tokenizer, detect_format(tokenizer))


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(train, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_candidates_are_rows_with_the_given_reply_first(chat):
    (row,), dropped = candidate_rows([parse_candidates(ROW)], chat, 512)
    assert dropped == ()
    assert row.wins.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]  # GOOD twice is once, helpful
    assert row.marks.tolist() == [[1, 0], [0, 0], [0, 0]]
    said = [chat.tokenizer.decode(target[weight > 0])
            for target, weight in zip(row.targets, row.weights, strict=True)]  # fmt: skip
    assert said == [f"{text}<|im_end|>" for text in (GOLD, GOOD, BAD)]
    assert row.prefix > 4
    again = ROW | {"candidates": [BAD, BAD, GOOD], "helpful": [0, None, None]}
    (row,), _ = candidate_rows([parse_candidates(again)], chat, 512)
    assert not row.wins.any()  # nobody is known to be helpful
    again["helpful"] = [0, None, 1]
    (row,), _ = candidate_rows([parse_candidates(again)], chat, 512)
    assert row.wins[2, 1] == row.wins.sum() == 1
    assert candidate_rows([parse_candidates(ROW)], chat, 9) == ([], ("a",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"helpful": [1]}, "helpful: give a list of 4"),
        ({"candidates": []}, "candidates: missing"),
        ({"candidates": [GOOD, "", GOOD, BAD]}, r"candidates\[1\]: empty"),
        ({"helpful": [None, 0, 1, "yes"]}, "helpful: 'yes'; allowed: true, false"),
        ({"gold": None}, "gold: missing"),
    ],
)
def test_bad_candidates_are_named(change, told):
    with pytest.raises(InputError, match=told):
        parse_candidates(ROW | change)


def test_the_loss_of_muffin_is_that_of_its_replies_apart(chat):
    """Against each reply in a row of its own, forward, and the formula in numpy."""
    rows = [ROW, {**ROW, "id": "b", "prompt": "It rains.", "helpful": [1, 1, 1, 1]}]
    found, _ = candidate_rows(list(map(parse_candidates, rows)), chat, 512)
    small = [dataclasses.replace(
        one, documents=tuple(d % 61 for d in one.documents),
        targets=tuple(t % 61 for t in one.targets)) for one in found]  # fmt: skip
    bounds = preference_bounds(small, shared=True, mismatches=False)
    batch = preference_batch(small, None, bounds, {row: n for n, row in enumerate(small)})
    model = tiny()
    config = MuffinConfig(margin=0.5, contrastive=2.0, gold=3.0)
    loss = jax.jit(muffin_loss(model.graphdef, bounds.rows, config))
    mean, metrics = loss(model.adapter, model.base, jax.tree.map(jnp.asarray, batch))

    length = max(len(d) for one in small for d in one.documents)
    tokens = np.zeros((6, length), np.int32)
    for at, document in enumerate(d for one in small for d in one.documents):
        tokens[at, : len(document)] = document
    place = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)

    @jax.jit
    def log_probs(base):
        decoder = merge(model.graphdef, model.adapter, base)
        hidden = decoder.hidden(tokens, place, np.ones_like(tokens))
        return jax.nn.log_softmax(decoder.logits(hidden))

    said = np.asarray(log_probs(model.base), np.float64)
    scores, nll = [], []
    for at, (targets, weights) in enumerate(
        pair for one in small for pair in zip(one.targets, one.weights, strict=True)
    ):
        picked = said[at, np.arange(len(targets)), targets][weights > 0]
        scores.append(np.exp(picked).mean())
        nll.append(-picked.mean())
    margin = max(0.0, 0.5 - (scores[1] - scores[2]))
    expected = (2.0 * margin + 3.0 * (nll[0] + nll[3])) / 2
    assert float(mean.value) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["gap"].value) == pytest.approx(scores[1] - scores[2], rel=1e-4, abs=1e-7)
    assert (float(metrics["margin_loss"].count), float(metrics["apart"].value)) == (1.0, 0.0)


def test_a_prefix_takes_the_place_of_the_first_vectors():
    model = tiny()
    tokens = np.arange(12, dtype=np.int32).reshape(2, 6)
    place = np.broadcast_to(np.arange(6, dtype=np.int32), tokens.shape)

    @jax.jit
    def hidden(tokens, soft=None):
        decoder = merge(model.graphdef, model.adapter, model.base)
        return decoder.hidden(tokens, place, np.ones((2, 6), np.int32), soft=soft)

    vectors = model.base["embed"]["embedding"][tokens[:, :2]]
    other = tokens.copy()
    other[:, :2] = 50
    np.testing.assert_allclose(hidden(tokens), hidden(other, vectors), atol=1e-6)
    assert np.abs(hidden(tokens, 2 * vectors) - hidden(tokens)).max() > 1e-3


def test_gates_are_of_the_sources_that_are_fused():
    every, two = ("history", "personality", "reaction"), ("history", "reaction")

    @jax.jit
    def made(h, p, r):
        configs = (PrefixConfig(3, 8, sources) for sources in (every, two))
        return [SoftPrefix(jax.random.key(0), one, 16, 5, 2)(h, p, r) for one in configs]

    h, p, r = jnp.ones((2, 16)), jnp.ones((2, 5)), jnp.ones((2, 2))
    (whole, gates), (without, fewer) = made(h, p, r)
    (whole2, _), (without2, _) = made(h, -p, r)
    assert whole.shape == (2, 3, 16)
    assert set(gates) == set(every)
    assert set(fewer) == set(two)
    assert all((np.asarray(gate) > 0).all() and (np.asarray(gate) < 1).all()
               for gate in gates.values())  # fmt: skip
    assert np.abs(whole - whole2).max() > 1e-3
    np.testing.assert_array_equal(without, without2)
    with pytest.raises(InputError, match=r"sources .*; allowed: some of history"):
        PrefixConfig(sources=("mood",))


def dialogue(name, *said):
    roles = ("user", "assistant") * len(said)
    turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return {"id": name, "messages": turns}


def test_a_row_with_features_trains_the_last_reply_alone(chat, tmp_path):
    documents = read_documents(
        lines(tmp_path / "x.jsonl", [dialogue("a", "Hi.", "Hello.", "I failed.", GOLD)]), "messages"
    )
    path = lines(tmp_path / "f.jsonl", [{"id": "a", "traits": [0.5], "reactions": [1, 2]}])
    (row,), _ = featured(documents, read_features(path), chat, 512)
    batch = featured_batch([row, None], 64, 3, (1, 2))
    (first, second), mask = batch.batch.tokens, batch.batch.mask
    assert chat.tokenizer.decode(batch.batch.targets[0][mask[0] > 0]) == f"{GOLD}<|im_end|>"
    assert first[3:].tolist()[: row.example.length] == row.example.tokens[:-1].tolist()
    assert not second.any()
    assert batch.traits.tolist() == [[0.5], [0.0]]
    with pytest.raises(InputError, match="record a: no features of it; `hen build traits`"):
        featured(documents, {}, chat, 512)
    lines(path, [{"id": "a", "traits": [1], "reactions": [1]},
                 {"id": "b", "traits": [1, 2], "reactions": [1]}])  # fmt: skip
    with pytest.raises(InputError, match="of several lengths"):
        read_features(path)


def test_no_gradient_comes_from_the_analysis_in_the_second_stage(chat):
    said = (Message("user", "I failed."), Message("assistant", GOLD))
    found = ebg.Analysis("They lost an exam.", "negative", "sad")
    for stage, trains in ((1, ebg.analysis_text(found, "en")), (2, GOLD)):
        row = ebg.training_row("a", said, found, stage, labels=HED_LABELS)
        turns = tuple(Message(one["role"], one["content"], trains=one.get("train"))
                      for one in row["messages"])  # fmt: skip
        rendered = render(Conversation(turns), chat)
        text = chat.tokenizer.decode(rendered.tokens[rendered.mask])
        assert text == f"{trains}<|im_end|>"
        assert ("They lost an exam." in chat.tokenizer.decode(rendered.tokens)) is True


def test_stages_refuse_what_they_cannot_read(tiny_base, tmp_path):
    for recipe, more, told in (
        ("muffin", {}, "schema 'hed'; recipe 'muffin' reads 'candidates'"),
        ("pecer", {"features": str(tmp_path / "gone.jsonl")}, "gone.jsonl"),
    ):
        with pytest.raises(InputError, match=told):
            run(tiny_base, tmp_path / recipe, recipe=recipe, **more)


def test_the_reward_of_levels_is_one_of_a_policy(tmp_path):
    source = RewardSource("epitome")
    with pytest.raises(InputError, match="reward 'epitome': give the folder of its identifier"):
        terms([source], Circumstance(0, 64))
    with pytest.raises(InputError, match="holds no identifier"):
        terms([dataclasses.replace(source, path=str(tmp_path))], Circumstance(0, 64))


def eval_losses(workdir, name="loss"):
    return [one[name] for one in read_metrics(workdir) if one["kind"] == "eval"]


FACTS = [f"case {n} of the {word}" for n in range(12) for word in ("rain", "cat", "exam")]


@pytest.mark.slow
def test_muffin_puts_helpful_candidates_above_the_others(tiny_base, tmp_path, one_device):
    """Slow: a whole run. Unhelpful ones end below by the margin; the given reply keeps its own."""
    rows = [{"id": text, "prompt": text, "gold": GOLD, "candidates": [GOOD, BAD, "Hm."],
             "helpful": [1, 0, None]} for text in FACTS]  # fmt: skip
    source = {"schema": "candidates", "path": str(lines(tmp_path / "c.jsonl", rows))}
    given = {"recipe": "muffin", "sources": (source,), "adapter": None, "epochs": 6.0,
             "data": {"row_length": 256, "batch_size": 8}}  # fmt: skip
    run(tiny_base, tmp_path / "run", **given)
    gap, nll, apart = (eval_losses(tmp_path / "run", name) for name in ("gap", "gold_nll", "apart"))
    assert gap[0] < 0.01 <= gap[-1]
    assert apart[-1] == 1.0
    assert np.exp(nll[-1]) < 1.05 * np.exp(nll[0])


@pytest.mark.slow
def test_pecer_needs_the_personality_where_the_reply_depends_on_it(tiny_base, tmp_path, one_device):
    """Slow: two runs. Of the same prompts half are answered each way, by the trait alone."""
    random = np.random.default_rng(0)
    rows, known = [], []
    for n in range(160):
        trait = float(random.choice([-1.0, 1.0]))
        reply = "Come, we go out together tonight." if trait > 0 else "Stay in. I bring the soup."
        rows.append(dialogue(str(n), f"I failed, {n % 7}.", reply) | {"group": str(n)})
        known.append({"id": str(n), "traits": [trait, 0.0], "reactions": [0.5]})
    source = {"schema": "messages", "path": str(lines(tmp_path / "x.jsonl", rows))}
    given = {"recipe": "pecer", "sources": (source,), "adapter": None, "epochs": 6.0,
             "features": str(lines(tmp_path / "f.jsonl", known)), "traits": 2, "reactions": 1,
             "data": {"row_length": 128, "batch_size": 8}}  # fmt: skip
    run(tiny_base, tmp_path / "whole", **given)
    fewer = {"sources": ("history", "reaction")}
    run(tiny_base, tmp_path / "fewer", **given, prefix=fewer)
    whole, without = (eval_losses(tmp_path / name)[-1] for name in ("whole", "fewer"))
    assert whole < without - 0.03  # ln 2 over the reply's tokens is 0.08 or so
    told = [one for one in read_metrics(tmp_path / "whole") if one["kind"] == "train"][-1]
    assert 0 < told["gate/personality"] < 1


@pytest.mark.slow
def test_both_stages_of_ebg_learn_and_the_label_is_then_right(tiny_base, tmp_path, one_device):
    """Slow: two runs, the second from the first, and replies of its model."""
    said = {"rain": "sad", "cup": "happy"}
    rows = {1: [], 2: []}
    for n in range(40):
        word, emotion = list(said.items())[n % 2]
        turns = (Message("user", f"The {word}, {n}."), Message("assistant", f"Oh, the {word}."))
        found = ebg.Analysis(f"About the {word}.", HED_LABELS[emotion], emotion)
        for stage in rows:
            rows[stage].append(
                ebg.training_row(str(n), turns, found, stage, labels=HED_LABELS))  # fmt: skip
    given = {"adapter": None, "epochs": 12.0, "data": {"row_length": 256, "batch_size": 8}}
    for stage in rows:
        path = lines(tmp_path / f"{stage}.jsonl", rows[stage])
        source = {"schema": "messages", "path": str(path)}
        start = {} if stage == 1 else {"start": str(tmp_path / "1")}
        run(tiny_base, tmp_path / str(stage), sources=(source,), **given, **start)
        losses = eval_losses(tmp_path / str(stage))
        assert losses[-1] < 0.5 * losses[0]
    assert eval_losses(tmp_path / "1", "accuracy")[-1] > 0.9


def test_stages_are_in_the_table():
    for name in ("muffin", "pecer"):
        stage, parsed = read_config(
            run_config("tiny", recipe=name, **({"features": "x"} if name == "pecer" else {}))
        )
        assert stage is stage_of(name)
        assert parsed.recipe == name
        assert stage.summary(parsed).endswith(",")

"""Patterns as a file: what is written is read, what is wrong is named, what is learnt is right."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.patterns import (
    context_of_task,
    contexts_beside,
    default_guides,
    guides_toml,
    parse_guides,
    read_guides,
)
from hen_jax.data.schemas import check_records, read_records
from hen_jax.data.sense7 import RatedConversation, RatedTurn
from hen_jax.empathy.clusters import CONTEXT_OF_TASK, CONTEXTS
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.evaluation.pattern_learning import learn_patterns, simplex_weights
from hen_jax.text.conversation import Message

GRIEF = """
[grief]
level = 0.95
tasks = ["bereavement"]
about = { en = "the death of someone close", zh = "亲近的人去世" }
rules = ["Name the one who died."]
limits = { questions = 1 }
[grief.weights]
Affective = 0.4
Cognitive = 0.1
Response = 0.1
Prosocial = 0.1
Interest = 0.1
Contextual = 0.1
Relational = 0.1
"""


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "patterns.toml"
    path.write_text(guides_toml(default_guides(), {"career": ["a comment"]}), encoding="utf-8")
    found = read_guides(path)
    assert list(found) == list(CONTEXTS)
    for name, guide in default_guides().items():
        assert found[name].context == guide.context
        assert found[name].pattern.rules == guide.pattern.rules
        assert found[name].pattern.limits == guide.pattern.limits
        assert found[name].pattern.weights == pytest.approx(guide.pattern.weights)
    assert context_of_task(found) == CONTEXT_OF_TASK
    assert "# a comment\n[career]" in path.read_text(encoding="utf-8")


def test_a_context_is_added_without_code(tmp_path):
    (tmp_path / "patterns.toml").write_text(GRIEF, encoding="utf-8")
    line = samples.path("eea/distress.jsonl").read_text(encoding="utf-8").splitlines()[0]
    row = json.loads(line) | {"cluster": "grief", "task": "bereavement"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (record,) = read_records(tmp_path / "mine.jsonl", "steered")
    assert (record.context, record.task) == ("grief", "bereavement")
    assert contexts_beside(tmp_path / "mine.jsonl")["grief"].words.zh == "亲近的人去世"
    (tmp_path / "mine.jsonl").write_text(line, encoding="utf-8")
    (problem,) = check_records(tmp_path / "mine.jsonl", "steered").problems
    assert "cluster: 'distress' is no label; allowed: grief" in str(problem)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.95", "1.5", r"grief\.level: 1.5; allowed: a number from 0 to 1"),
        ('["bereavement"]', "[]", r"grief\.tasks: \[\]; allowed: a list of at least one"),
        ("Affective = 0.4", "Affective = 0.5", r"grief\.weights: they sum to 1.1"),
        ("Affective = 0.4", "Afective = 0.4", r"grief\.weights\.Affective: missing"),
        ("questions = 1", "questions = -1", r"grief\.limits\.questions: -1; allowed: a whole"),
        ("questions = 1", "hugs = 1", r"grief\.limits\.hugs: unknown; allowed: questions"),
        ('zh = "亲近的人去世"', 'fr = "un deuil"', r"grief\.about\.zh: missing"),
        ('["Name the one who died."]', '[""]', r"grief\.rules\[0\]\.en: empty"),
        ("tasks", "task", r"grief\.tasks: missing"),
        ("level = 0.95", "level = ", r"patterns\.toml: no valid TOML"),
        ("[grief]", "[[grief]]", r"no valid TOML|grief: .*allowed: a table"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    path = tmp_path / "patterns.toml"
    assert old in GRIEF
    path.write_text(GRIEF.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_guides(path)


def test_a_task_has_one_context_and_a_file_some():
    import tomllib

    one = tomllib.loads(GRIEF)["grief"]
    with pytest.raises(InputError, match=r"loss\.tasks: 'bereavement' is of grief, too"):
        parse_guides({"grief": one, "loss": one})
    with pytest.raises(InputError, match="no context"):
        parse_guides({})


def test_weights_are_the_minimum_on_the_simplex():
    """Beside a general solver of the same problem."""
    random = np.random.default_rng(0)
    x, given = random.random((40, 7)), np.asarray([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    y = x @ np.asarray([0, 0, 0.9, 0.1, 0, 0, 0]) + 0.05 * random.normal(size=40)
    u, v = x - x.mean(axis=0), y - y.mean()
    ridge = 30 * np.mean(u**2)

    def loss(w):
        return np.sum((v - u @ w) ** 2) + ridge * np.sum((w - given) ** 2)

    total = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(loss, given, bounds=[(0, 1)] * 7, constraints=[total], tol=1e-12).x
    found = simplex_weights(x, y, given)
    np.testing.assert_allclose(found, best, atol=1e-4)
    assert found[2] > given[2]
    np.testing.assert_array_equal(simplex_weights(np.ones((9, 7)), y[:9], given), given)


def rated(number: int, desired: float, satisfied: float, **ratings) -> RatedConversation:
    turns = (
        RatedTurn(Message("user", "Hm."), {}, False),
        RatedTurn(Message("assistant", "Yes."), ratings, False),
    )
    name, who = f"t{number}", f"p{number % 10}"
    return RatedConversation(
        name, who, "m", "learning_skills", "learning", None, desired, {"Engaged": satisfied}, {},
        turns,
    )  # fmt: skip


def test_levels_and_weights_are_learnt_of_enough_people():
    guides = default_guides()
    many = [rated(at, 1 + at % 2, 1 + at % 5, Response=1 + at % 5) for at in range(60)]
    found = learn_patterns(many, guides, draws=50)
    learnt = found["learning"]
    assert (learnt.conversations, learnt.participants) == (60, 10)
    assert learnt.level is not None
    assert learnt.level.mean == pytest.approx(0.25)
    assert learnt.level.low < 0.25 < learnt.level.high
    assert found["distress"] == (0, 0, None, None)
    # Satisfaction is the one rating there is, and an unrated dimension is as the rated ones.
    assert learnt.weights is not None
    given = guides["learning"].pattern.weights
    assert {name: one.mean for name, one in learnt.weights.items()} == pytest.approx(given)
    apart = [one for at in range(60) for one in [rated(
        at, 2, 1 + at % 5, Response=1 + at % 5, **{n: 1 + (at * 7) % 3 for n in DIMENSIONS
                                                  if n != "Response"})]]  # fmt: skip
    more = learn_patterns(apart, guides, draws=50)["learning"].weights
    assert more is not None
    assert more["Response"].mean > given["Response"] + 0.1
    few = learn_patterns(many[:4], guides, draws=5)["learning"]
    assert (few.conversations, few.level, few.weights) == (4, None, None)


def test_the_verb_learns_from_the_shipped_set(tmp_path, capsys):
    data = str(samples.path("sense7/conversations.jsonl"))
    assert cli.main(["data", "patterns", f"--out={tmp_path}", f"--sense7={data}"]) == 0
    report = json.loads((tmp_path / "patterns.json").read_text())
    found = read_guides(tmp_path / "patterns.toml")
    for name, one in report["contexts"].items():
        assert found[name].pattern.level == pytest.approx(one["level"], abs=1e-3)
        assert sum(one["weights"].values()) == pytest.approx(1)
    assert found["distress"].pattern.level > found["writing"].pattern.level
    assert cli.main(["data", "patterns", f"--out={tmp_path}", "--patterns=nowhere.toml"]) == 2
    assert "nowhere.toml: cannot be read" in capsys.readouterr().err

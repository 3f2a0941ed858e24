"""Prompts say what the record gives, in its language, and nothing else."""

import pytest

from hen_jax.data import samples
from hen_jax.data.hed import hed_conversation
from hen_jax.data.schemas import read_records
from hen_jax.empathy.clusters import CONTEXT_OF_TASK, CONTEXTS
from hen_jax.empathy.labels import EMOTIONS, LANGUAGES, PERSONALITIES, ROLE_WORDS, TASKS
from hen_jax.empathy.patterns import DIMENSIONS, PATTERNS
from hen_jax.empathy.scales import DESIRED, PERCEIVED
from hen_jax.text.conversation import Message
from hen_jax.text.prompts import HIGH_CONTEXT_RULES, context_message, hed_messages


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_a_task_gives_its_conditions_and_no_other(task, language):
    gives = TASKS[task]
    system, user = hed_messages(
        "Exam tomorrow.",
        emotion="worried",
        role="parent" if gives.role else None,
        personality="ESTJ" if gives.personality else None,
        language=language,
    )
    assert user == Message("user", "Exam tomorrow.")
    assert all(rule.spoken(language) in system.content for rule in HIGH_CONTEXT_RULES)
    assert EMOTIONS["worried"].spoken(language) in system.content
    assert (ROLE_WORDS["parent"].spoken(language) in system.content) == gives.role
    assert ("ESTJ" in system.content) == gives.personality
    assert "{" not in system.content


def test_worked_example_of_the_docstring():
    system, _ = hed_messages("Exam tomorrow.", emotion="worried", role="parent")
    assert system.content.endswith("You are their parent. They feel: worried.")


def test_any_two_conditions_give_different_prompts():
    """No two labels share their words, in either language: a condition can be told from another."""
    for language in LANGUAGES:
        for labels in (EMOTIONS, ROLE_WORDS, PERSONALITIES):
            assert len({words.spoken(language) for words in labels.values()}) == len(labels)


def test_a_shipped_record_becomes_system_statement_reply():
    record = read_records(samples.path("hed/hed.zh.jsonl"), "hed")[3]
    messages = hed_conversation(record).messages
    assert [m.role for m in messages] == ["system", "user", "assistant"]
    assert (messages[1].content, messages[2].content) == (record.statement, record.response)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_context_has_a_whole_pattern_and_its_words(language):
    assert list(PATTERNS) == list(CONTEXTS)
    for name, pattern in PATTERNS.items():
        assert (pattern.context, pattern.level) == (name, CONTEXTS[name].level)
        assert list(pattern.weights) == list(DIMENSIONS)
        assert sum(pattern.weights.values()) == pytest.approx(1)
        content = context_message(name, language).content
        assert f"{pattern.level:g}" in content
        assert all(rule.spoken(language) in content for rule in pattern.rules)


def test_eight_tasks_fall_into_four_contexts():
    assert (len(CONTEXT_OF_TASK), len(CONTEXTS)) == (8, 4)
    assert CONTEXT_OF_TASK["work_issue"] == "career"


def test_scales_meet_in_the_unit_interval():
    assert [DESIRED.to_unit(r) for r in (1, 2, 3)] == [0, 0.5, 1]
    assert [PERCEIVED.to_unit(r) for r in (1, 2, 5)] == [0, 0.25, 1]
    assert PERCEIVED.from_unit(PERCEIVED.to_unit(4)) == 4
    for bad in (0, 4, float("nan")):
        with pytest.raises(ValueError, match="allowed: 1 to 3"):
            DESIRED.to_unit(bad)

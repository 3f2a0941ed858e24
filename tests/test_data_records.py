"""Every bad line is named by file, line and field; the shipped data has none."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.schemas import check_records, read_records
from hen_jax.data.splits import part_of, split_records
from hen_jax.data.steered import steered_conversation

GOOD = {
    "id": "a", "statement_id": "s", "task": "SRER", "lang": "en", "emotion": "sad",
    "role": "friend", "personality": None, "statement": "It rained.", "response": "Come in.",
    "rejected": [{"kind": "generic", "text": "Oh."}],
}  # fmt: skip
STEERED = {
    "id": "c-hard", "cluster": "writing", "task": "work_assignment", "target_level": 0.2,
    "persona": {"age_band": "30-39", "occupation": "cook", "temperament": "dry", "need": "speed"},
    "turns": [{"user": "Draft it.", "chosen": "Here.", "rejected": "Breathe."}],
    "fault": "forgets",
}  # fmt: skip


def without(row: dict, key: str) -> dict:
    return {name: value for name, value in row.items() if name != key}


def first_problem(tmp_path, schema, row) -> str:
    file = tmp_path / "x.jsonl"
    line = row if isinstance(row, str) else json.dumps(row)
    file.write_text(f"\n{line}\n", encoding="utf-8")
    (problem,) = check_records(file, schema).problems
    assert str(problem).startswith(f"{file}:2:")
    return problem.what


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "a",', r"column 1[12]: not valid JSON \("),
        ('{"id": NaN}', r"not valid JSON \(NaN"),
        ("[" * 100_000, "not valid JSON"),
        ("9" * 5_000, "not valid JSON"),
        ("[1]", "column 1: a JSON int; each line must be an object"),
        ('{"id": "a", "id": "b"}', "^column 1: id: given twice in one object; keep one"),
        (without(GOOD, "emotion"), "^emotion: missing; every record needs id, task"),
        (GOOD | {"emotion": "glum"}, "^emotion: 'glum' is no label; allowed: happy, sad, "),
        (GOOD | {"emotion": ["sad"]}, r"^emotion: \['sad'\] is no label; allowed: happy"),
        (GOOD | {"task": "SERP"}, "^task: 'SERP' is no label; allowed: SER, SRER, SPER, SRPER$"),
        (GOOD | {"role": None}, "^role: None is no label; allowed: parent, "),
        (GOOD | {"personality": "INTJ"}, "^personality: 'INTJ' in a task that does not give it"),
        (GOOD | {"statement": 5}, "^statement: 5 is not text"),
        (GOOD | {"response": " \n"}, "^response: empty"),
        (GOOD | {"response": "a\x00b"}, r"^response: holds '\\x00' at character 2"),
        (GOOD | {"response": "a\ud800"}, r"^response: holds '\\ud800' at character 2"),
        (GOOD | {"rejcted": []}, "^rejcted: unknown key; allowed: id, "),
        (GOOD | {"rejected": {}}, "^rejected: {}; allowed: a list"),
        (GOOD | {"rejected": [{"kind": "odd", "text": "x"}]}, r"^rejected\[0\]\.kind: 'odd'"),
        (GOOD | {"history": [{"role": "system"}]}, r"^history\[0\]\.content: missing"),
        (GOOD | {"history": [{"role": "bot", "content": "x"}]}, r"^history\[0\]\.role: 'bot'"),
    ],
)  # fmt: skip
def test_a_bad_hed_line_is_named(tmp_path, row, message):
    assert re.search(message, first_problem(tmp_path, "hed", row))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (STEERED | {"cluster": "cooking"}, "^cluster: 'cooking' is no label; allowed: distress"),
        (STEERED | {"task": "work_issue"}, "^task: 'work_issue' is not of the cluster 'writing'"),
        (STEERED | {"target_level": 2}, "^target_level: 2; allowed: a number from 0 to 1"),
        (STEERED | {"target_level": True}, "^target_level: True; allowed: a number"),
        (STEERED | {"turns": []}, "^turns: empty"),
        (STEERED | {"turns": [{"user": "x", "chosen": "y"}]}, r"^turns\[0\]\.rejected: missing"),
        (STEERED | {"turns": ["x"]}, r"^turns\[0\]: 'x'; allowed: a JSON object"),
        (STEERED | {"persona": {"age_band": "x"}}, r"^persona\.occupation: missing"),
        (STEERED | {"fault": "late"}, "^fault: 'late' is no label; allowed: misreads"),
    ],
)
def test_a_bad_steered_line_is_named(tmp_path, row, message):
    assert re.search(message, first_problem(tmp_path, "steered", row))


def test_reading_names_the_first_bad_line_and_counts_the_others(tmp_path):
    file = tmp_path / "x.jsonl"
    lines = [GOOD, GOOD | {"id": "b", "emotion": "glum"}, GOOD, GOOD | {"id": "d", "task": 3}]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{file}:2:emotion: .*\(and 2 more bad lines\)$"):
        read_records(file, "hed")
    parsed = check_records(file, "hed")
    assert [record.id for record in parsed.records] == ["a"]
    assert parsed.problems[1].what == "id: 'a' is also on line 1; give each record its own"


def test_files_as_they_come(tmp_path):
    """A byte order mark, mixed newlines and blank lines are fine; a bad byte is named."""
    file = tmp_path / "x.jsonl"
    lines = [json.dumps(GOOD | {"id": name, "statement": "雨\u2028下"}, ensure_ascii=False)
             for name in "abc"]  # fmt: skip
    file.write_bytes(b"\xef\xbb\xbf" + "{}\r\n\r\n{}\r{}\n".format(*lines).encode())
    assert [record.id for record in read_records(file, "hed")] == ["a", "b", "c"]
    file.write_bytes(lines[0].encode() + b'\n{"id": "\xff"}\n' + lines[1].encode())
    with pytest.raises(InputError, match=r"x\.jsonl:2:column 9: not UTF-8"):
        read_records(file, "hed")
    file.write_bytes(b"\n")
    with pytest.raises(InputError, match="no record"):
        read_records(file, "hed")
    with pytest.raises(InputError, match="No such file"):
        read_records(tmp_path / "none.jsonl", "hed")


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([json.dumps(GOOD).encode()]), max_size=6))
def test_no_file_crashes_the_reader(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("fuzz") / "x.jsonl"
    file.write_bytes(b"\n".join(lines))
    parsed = check_records(file, "hed")
    assert len(parsed.records) <= 1  # the good line, once: its repetitions share an id


def test_shipped_data_loads_and_is_as_the_card_says():
    hed = {
        lang: read_records(samples.path(f"hed/hed.{lang}.jsonl"), "hed") for lang in ("en", "zh")
    }
    for records in hed.values():
        assert Counter(r.task for r in records) == dict.fromkeys(
            ["SER", "SRER", "SPER", "SRPER"], 80
        )
        assert Counter(r.emotion for r in records).most_common()[0][1] == 40
        assert all(len(r.rejected) >= 2 for r in records)
    for context in ("distress", "career", "learning", "writing"):
        plain = read_records(samples.path(f"eea/{context}.jsonl"), "steered")
        hard = read_records(samples.path(f"eea/{context}.hard.jsonl"), "steered")
        assert (len(plain), len(hard)) == (60, 20)
        assert {r.context for r in plain + hard} == {context}
        by_id = {record.id: record for record in plain}
        for pair in hard:
            assert pair.fault
            assert steered_conversation(pair) == steered_conversation(by_id[pair.group])
    assert (
        "CC0 1.0 Universal" in (samples.path("hed/hed.en.jsonl").parents[1] / "LICENSE").read_text()
    )
    with pytest.raises(InputError, match=r"allowed: .*eea/career\.hard\.jsonl"):
        samples.path("hed/none.jsonl")


def test_both_branches_share_the_user_side():
    record = read_records(samples.path("eea/career.jsonl"), "steered")[0]
    chosen, rejected = (steered_conversation(record, b).messages for b in ("chosen", "rejected"))
    assert [m for m in chosen if m.role == "user"] == [m for m in rejected if m.role == "user"]
    assert all(a != b for a, b in zip(chosen, rejected, strict=True) if a.role == "assistant")
    prompted = steered_conversation(record, prompted=True).messages
    assert (prompted[0].role, prompted[1:]) == ("system", chosen)


def test_splits_keep_groups_whole_and_stay_put():
    records = [
        *read_records(samples.path("hed/hed.en.jsonl"), "hed"),
        *read_records(samples.path("hed/hed.zh.jsonl"), "hed"),
    ]
    parts = split_records(records, lambda record: record.statement_id)
    groups = [{record.statement_id for record in part} for part in parts]
    assert [len(group) for group in groups] == [65, 8, 7]
    assert sum(map(len, parts)) == len(records) == 640
    assert sum(map(len, groups)) == len(set.union(*groups))
    # a record keeps its part whatever else is in the file, and across versions of this code
    fewer = split_records(records[::-3], lambda record: record.statement_id)
    assert all(
        {r.statement_id for r in few} <= group for few, group in zip(fewer, groups, strict=True)
    )
    assert [part_of(f"hed-{n:04d}") for n in range(1, 9)] == [
        *["train"] * 4, "valid", "train", "train", "valid",
    ]  # fmt: skip


def test_shares_are_eight_one_one_and_depend_on_the_salt():
    names = [str(n) for n in range(5000)]
    counts = Counter(map(part_of, names))
    assert counts["valid"] == pytest.approx(500, rel=0.15)
    assert counts["test"] == pytest.approx(500, rel=0.15)
    assert [part_of(name) for name in names] != [part_of(name, "another") for name in names]


def test_a_hard_pair_goes_with_its_base_pair():
    plain = read_records(samples.path("eea/learning.jsonl"), "steered")
    hard = read_records(samples.path("eea/learning.hard.jsonl"), "steered")
    parts = split_records([*plain, *hard], lambda record: record.group)
    for part in parts:
        assert {r.group for r in part if r.fault} <= {r.id for r in part}

"""What is wrong with a file, what it repeats, what it gives away and whom it names."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import tiny_tokenizer

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.cues import cue_accuracy
from hen_jax.data.duplicates import Copy, duplicates, leaks, normal_form, without_duplicates
from hen_jax.data.examples import Document
from hen_jax.data.preferences import Pair
from hen_jax.data.privacy import scrub_text, scrub_value
from hen_jax.data.schemas import read_documents, read_pairs
from hen_jax.data.splits import split_records
from hen_jax.text.conversation import Conversation, Message
from hen_jax.verbs.data.checking import scrub, validate
from hen_jax.verbs.data.stats import script_of, stats

GOOD = [json.loads(line) for line in samples.path("hed/hed.en.jsonl").read_text().splitlines()[:5]]


def lines_of(path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def document(name: str, said: str, group: str | None = None) -> Document:
    return Document(name, group or name, Conversation((Message("assistant", said),)))


def test_validate_parts_a_file_into_good_and_quarantine(tmp_path, capsys):
    file = tmp_path / "x.jsonl"
    bad = [b'{"id": 1', b"\xff", json.dumps(GOOD[0] | {"emotion": "glum", "id": "z"}).encode()]
    lines = [json.dumps(row).encode() for row in GOOD]
    file.write_bytes(b"\n".join([lines[0], bad[0], *lines[1:], bad[1], bad[2]]))
    found = validate(file, "hed", tmp_path / "out")
    assert (found.records, [problem.line for problem in found.problems]) == (5, [2, 7, 8])
    assert f"{file}:8:emotion: 'glum' is no label" in capsys.readouterr().out
    assert [json.loads(line) for line in lines_of(tmp_path / "out/good.jsonl")] == GOOD
    again = validate(tmp_path / "out/good.jsonl", "hed")
    assert (again.records, again.problems) == (5, [])
    kept = [json.loads(line) for line in lines_of(tmp_path / "out/quarantine.jsonl")]
    assert [row["line"] for row in kept] == [2, 7, 8]
    assert kept[0]["text"].strip() == '{"id": 1'
    with pytest.raises(InputError, match="is the file that is read"):
        validate(tmp_path / "out/good.jsonl", "hed", tmp_path / "out")


def test_validate_writes_other_schemas_as_messages(tmp_path):
    validate(samples.path("sense7/sense7.xlsx"), "sense7", tmp_path)
    written = read_documents(tmp_path / "good.jsonl", "messages")
    assert written == read_documents(samples.path("sense7/sense7.xlsx"), "sense7")


def test_stats_count_what_trains_and_what_the_surface_gives_away(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    report = stats(samples.path("hed/hed.en.jsonl"), "hed", tmp_path, tmp_path / "model")
    assert (report["records"], report["groups"]) == (320, 80)
    assert sum(report["parts"].values()) == 320
    assert 0 < report["trained"] < report["total"]
    assert set(report["labels"]["task"].values()) == {80}
    assert report["duplicates"] == report["same_text_in_train_and_held_out"] == 0
    assert report["cues"]["low_context"]["length_only"] > 0.95
    assert json.loads((tmp_path / "stats.json").read_text())["total"] == report["total"]
    assert (tmp_path / "lengths.png").read_bytes()[:4] == b"\x89PNG"
    characters = stats(samples.path("eea/career.jsonl"), "steered")
    assert characters["unit"] == "characters"


def test_stats_of_columns_by_another_name(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"question": "Who?", "answer": "Me."}')
    columns = {"prompt": "question", "completion": "answer"}
    report = stats(file, "completion", columns=columns)
    assert (report["total"], report["trained"]) == (7, 3)
    with pytest.raises(InputError, match=r"a\.jsonl:1:prompt"):
        stats(file, "completion")
    with pytest.raises(InputError, match="its files have fixed names"):
        stats(samples.path("sense7/sense7.xlsx"), "sense7", columns=columns)


def test_the_shipped_pairs_are_as_easy_and_as_hard_as_the_card_says():
    plain = cue_accuracy(read_pairs(samples.path("eea/distress.jsonl"), "steered"))
    assert plain.surface_cues > 0.9
    hard = [
        pair
        for context in ("distress", "career", "learning", "writing")
        for pair in read_pairs(samples.path(f"eea/{context}.hard.jsonl"), "steered")
    ]
    assert cue_accuracy(hard).surface_cues < 0.7


def test_the_ranker_solves_a_set_that_length_gives_away_and_no_other():
    def pair(n: int, chosen: str, rejected: str) -> Pair:
        sides = ((Message("assistant", text),) for text in (chosen, rejected))
        return Pair(str(n), str(n), (Message("user", "Hi"),), *sides)

    words = [f"word{n % 7} " * (3 + n % 5) for n in range(60)]
    short_wins = [pair(n, text, text * 2) for n, text in enumerate(words)]
    assert cue_accuracy(short_wins) == (60, 1.0, 1.0)
    asking_wins = [pair(n, text + "?", text + ".") for n, text in enumerate(words)]
    assert cue_accuracy(asking_wins) == (60, 0.5, 1.0)
    with pytest.raises(InputError, match="too few groups"):
        cue_accuracy(short_wins[:1])


def test_copies_are_found_through_case_width_and_punctuation():
    texts = ["Hi, there!", "ｈｉ　there", "Other", "hi there。"]
    assert duplicates(texts) == [Copy(0, 1, 1.0), Copy(0, 3, 1.0)]
    assert normal_form("雨下，成这样。") == "雨下成这样"
    documents = [document(str(n), text) for n, text in enumerate(texts)]
    assert [d.id for d in without_duplicates(documents)] == ["0", "2"]


def test_near_copies_are_measured():
    base = "it is bucketing down and there are three orders on the back of my scooter tonight"
    near = base.replace("tonight", "now")
    (copy,) = duplicates([base, "something else altogether, said by no one", near], 0.8)
    assert (copy.first, copy.index) == (0, 2)
    assert 0.8 <= copy.similarity < 1
    assert duplicates([base, near]) == []


def test_leaks_are_groups_and_texts_in_both_parts():
    train = [document("a", "Yes.", "g"), document("b", "No.")]
    assert leaks(train, [document("c", "no!"), document("d", "Else.", "g")]) == (
        ("g",), (("b", "c"),)
    )  # fmt: skip
    assert not leaks(train, [document("e", "Else.")])


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.text(max_size=3)), max_size=30))
def test_splits_never_share_a_statement(rows):
    documents = [document(str(n), said + "x", group) for n, (group, said) in enumerate(rows)]
    parts = split_records(documents, lambda one: one.group)
    assert not leaks(parts.train, [*parts.valid, *parts.test]).groups
    assert not leaks(parts.valid, parts.test).groups


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我的电话是１３８００１３８０００。", "我的电话是[PHONE]。"),
        ("打 +86 138-0013-8000 或 010-62345678", "打 [PHONE] 或 [PHONE]"),
        ("write to a.b@mail.co.uk or 张三＠例子.com", "write to [EMAIL] or [EMAIL]"),
        ("身份证110101199003074233，卡6222 0202 0000 1234 567", "身份证[ID]，卡[ACCOUNT]"),
        ("微信号：abc_12345", "[ACCOUNT]"),
        ("(555) 123-4567, +44 20 7946 0958, 07700 900123", "[PHONE], [PHONE], [PHONE]"),
        ("SSN 123-45-6789, passport number X1234567", "SSN [ID], passport [ID]"),
        ("2023-11-05 10:30, 1/3 + 1/4 = 7/12, 3.14159265358979, 400 miles, 2019-2020", None),
        ("房租3000块，8月15号前交，第12章第3节", None),
    ],
)
def test_what_identifies_is_masked_and_other_numbers_are_not(text, masked):
    assert scrub_text(text)[0] == (text if masked is None else masked)


@given(st.text())
def test_scrubbing_twice_changes_nothing_more(text):
    once, _ = scrub_text(text)
    assert scrub_text(once) == (once, Counter())


def test_scrub_reaches_every_text_of_a_file_and_counts(tmp_path):
    assert scrub_value({"a": ["b@c.de", 5, None], "b": {"c": "13800138000"}}) == (
        {"a": ["[EMAIL]", 5, None], "b": {"c": "[PHONE]"}}, Counter(email=1, phone=1)
    )  # fmt: skip
    file = tmp_path / "x.jsonl"
    file.write_text('{"messages": [{"content": "b@c.de"}], "note": "b@c.de"}\n')
    assert scrub(file, tmp_path / "y.jsonl") == Counter(email=2)
    assert "b@c.de" not in (tmp_path / "y.jsonl").read_text()
    file.write_text('{"a": 1}\n{')
    with pytest.raises(InputError, match=r"x\.jsonl:2:column 2: not valid JSON"):
        scrub(file, tmp_path / "z.jsonl")
    assert not (tmp_path / "z.jsonl").exists()
    with pytest.raises(InputError, match="is the file that is read"):
        scrub(file, file)


def test_scripts_are_told_apart():
    assert [script_of(t) for t in ("好的，OK。", "Fine.", "我今天feel很down", "12!")] == [
        "mixed", "other", "mixed", "other"
    ]  # fmt: skip
    assert script_of("雨下成这样。") == "han"


def test_the_verbs_read_what_ships_by_its_name(capsys):
    shipped = ["shipped:crossed/fact.en.jsonl", "--schema", "crossed"]
    assert cli.main(["data", "stats", *shipped]) == 0
    assert "110 records" in capsys.readouterr().out
    assert cli.main(["data", "validate", *shipped]) == 0
    assert cli.main(["data", "validate", "shipped:crossed/none.jsonl", "--schema", "crossed"]) == 2

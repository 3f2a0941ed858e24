"""Files as others publish them become the expected turns; what is broken in them is named."""

import contextlib
import csv
import gzip
import json
import random
import re

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.cped import check_cped
from hen_jax.data.empathetic_dialogues import ED_COLUMNS, check_empathetic_dialogues
from hen_jax.data.examples import Document
from hen_jax.data.hed import hed_conversation, hed_row, parse_hed
from hen_jax.data.rows import read_lines
from hen_jax.data.schemas import SCHEMAS, check_records, read_documents, read_pairs, read_records
from hen_jax.empathy.traits import TRAITS

SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def written(path, rows) -> str:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def roles_and_words(document: Document) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in document.conversation.messages]


HELLO = [("user", "Hi"), ("assistant", "Hello")]


def test_hed_reads_the_same_from_every_kind_of_file(tmp_path):
    expected = read_records(samples.path("hed/hed.zh.jsonl"), "hed")[:9]
    rows = [hed_row(record) for record in expected]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        for row in rows:
            lists = {key: json.dumps(row[key]) for key in ("rejected", "history")}
            out.writerow(row | lists)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    for name in ("a.json", "a.parquet", "a.csv", "a.jsonl.gz"):
        assert read_records(tmp_path / name, "hed") == expected, name


def test_lines_are_counted_through_json_arrays_and_quoted_cells(tmp_path):
    array, table = tmp_path / "a.json", tmp_path / "a.csv"
    array.write_text('[\n {"a": 1},\n\n {"a": 2}, 5\n]')
    assert [(n.line, n.row) for n in read_lines(array)] == [
        (2, {"a": 1}), (4, {"a": 2}), (4, None)
    ]  # fmt: skip
    array.write_text('[{"a": 1}, {"a": }, {"a": 3}]')
    assert "the rest of the array is not read" in list(read_lines(array))[1].fault
    table.write_text('a,b\n"x\ny",2\n3\n4,5\n')
    assert [n.line for n in read_lines(table)] == [2, 4, 5]
    assert list(read_lines(table))[1].fault == "column 1: 1 fields; the header has 2"


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"messages": SAID, "source": None}, {"messages": SAID * 2, "source": "x"}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    parsed = check_records(tmp_path / "saved", "messages")
    assert [len(d.conversation.messages) for d in parsed.records] == [2, 4]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no data file in this folder; allowed: \.jsonl"):
        check_records(tmp_path / "empty", "messages")


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        ("messages", {"messages": SAID, "extra": 1}),
        ("messages", {"conversations": [{"from": "human", "value": "Hi"},
                                                 {"from": "gpt", "value": "Hello"}]}),
        ("messages", {"messages": [{"role": "client", "content": "Hi"},
                                            {"role": "counselor", "content": "Hello"}]}),
        ("completion", {"prompt": "Hi", "completion": "Hello"}),
        ("completion", {"prompt": SAID[:1], "completion": SAID[1:]}),
    ],
)  # fmt: skip
def test_generic_rows_become_the_same_conversation(tmp_path, schema, row):
    (found,) = check_records(written(tmp_path / "x.jsonl", [row]), schema).records
    assert roles_and_words(found) == HELLO
    assert (found.id, found.group) == ("x.jsonl:1", "Hi")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        {"prompt": SAID[:1], "chosen": SAID[1:],
         "rejected": [{"role": "assistant", "content": "What?"}]},
        {"chosen": SAID, "rejected": [SAID[0], {"role": "assistant", "content": "What?"}]},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
         "rejected": "\n\nHuman: Hi\n\nAssistant: What?"},
    ],
)  # fmt: skip
def test_explicit_and_implicit_prompts_give_the_same_pair(tmp_path, row):
    (pair,) = check_records(written(tmp_path / "x.jsonl", [row]), "preference").records
    assert [m.content for m in pair.prompt] == ["Hi"]
    assert [[m.content for m in side] for side in (pair.chosen, pair.rejected)] == [
        ["Hello"], ["What?"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("judged", "chosen", "expected"),
    [
        ({}, "Hello", (1.0, 0.0, 0.0)),
        ({"share": None, "tie": "", "margin": None}, "Hello", (1.0, 0.0, 0.0)),
        ({"share": "0.75"}, "Hello", (0.75, 0.0, 0.0)),
        ({"share": 0.25, "margin": 2}, "What?", (0.75, 0.0, 2.0)),
        ({"share": 0.1, "tie": 0.5}, "What?", (0.4, 0.5, 0.0)),
        ({"tie": 1}, "Hello", (0.0, 1.0, 0.0)),
    ],
)
def test_the_better_of_a_pair_by_the_shares_of_people_is_first(tmp_path, judged, chosen, expected):
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?", **judged}
    (pair,) = check_records(written(tmp_path / "x.jsonl", [row]), "preference").records
    assert pair.chosen[0].content == chosen
    assert (pair.share, pair.tie, pair.margin) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schema", "row", "message"),
    [
        ("messages", {"messages": SAID[:1]}, "no assistant turn"),
        ("messages", {"messages": []}, "messages: empty"),
        ("messages", {"text": "Hi"}, "messages: missing"),
        ("messages", {"messages": [{"role": "narrator", "content": "x"}]},
         r"^messages\[0\]\.role: 'narrator' is no label; allowed: system, user"),
        ("messages", {"messages": [*SAID, {"role": "system", "content": "x"}]}, "first"),
        ("messages", {"messages": "x" * 1_000_001}, "allowed: a list of JSON objects"),
        ("completion", {"prompt": "Hi"}, "^completion: missing"),
        ("completion", {"prompt": "Hi", "completion": "x" * 1_000_001}, "allowed: up to"),
        ("preference", {"prompt": "Hi", "chosen": "A", "rejected": "A"}, "same as chosen"),
        ("preference", {"chosen": "A", "rejected": "B"}, "a text without prompt"),
        ("preference", {"chosen": SAID, "rejected": SAID[1:]}, "do not begin alike"),
        ("label", {"messages": SAID, "label": "good"}, "label: 'good'; allowed: true"),
        ("rating", {"messages": SAID, "rating": 6}, "^rating: 6; allowed: a number from 1 to 5"),
    ],
)  # fmt: skip
def test_a_bad_generic_row_is_named(tmp_path, schema, row, message):
    (problem,) = check_records(written(tmp_path / "x.jsonl", [row]), schema).problems
    assert re.search(message, problem.what)


def test_labels_and_ratings(tmp_path):
    (labelled,) = check_records(
        written(tmp_path / "x.jsonl", [{"prompt": "Hi", "completion": "Hello", "label": 0}]),
        "label",
    ).records
    assert labelled.label is False
    (rated,) = check_records(
        written(tmp_path / "y.jsonl", [{"messages": SAID, "rating": 4}]), "rating"
    ).records
    assert rated.rating == 0.75


def ed_rows() -> list[str]:
    turns = ["I lost my cat_comma_ again", 'Oh no. "Which" one?', "Tom", "Poor Tom!"]
    return [
        f"hit:1_conv:2,{n},sad,I lost my cat,{n % 2},{text},5|5|5_2|2|5,"
        for n, text in enumerate(turns, start=1)
    ]


def test_empathetic_dialogues_in_any_order_with_a_broken_row(tmp_path):
    file = tmp_path / "train.csv"
    rows = [*ed_rows(), *(row.replace("conv:2", "conv:3") for row in ed_rows())]
    rows[5] = rows[5].replace("Oh no.", "Oh, no.")  # a raw comma: one field too many
    file.write_text("\n".join([",".join(ED_COLUMNS), *reversed(rows)]), encoding="utf-8")
    parsed = check_empathetic_dialogues(file)
    (dialogue,) = parsed.records
    assert (dialogue.id, dialogue.emotion, dialogue.situation) == (
        "hit:1_conv:2", "sad", "I lost my cat"
    )  # fmt: skip
    assert roles_and_words(dialogue.document()) == [
        ("user", "I lost my cat, again"), ("assistant", 'Oh no. "Which" one?'),
        ("user", "Tom"), ("assistant", "Poor Tom!"),
    ]  # fmt: skip
    assert [problem.what for problem in parsed.problems] == [
        "utterance: 9 raw fields; allowed: 8, the seventh the ratings, and candidates",
        "utterance_idx: 2 of hit:1_conv:3 is missing or bad",
    ]
    file.write_text("id,text\n1,2\n")
    with pytest.raises(InputError, match="the header is not conv_id"):
        check_empathetic_dialogues(file)


def test_empathetic_dialogues_of_a_test_file_with_candidates(tmp_path):
    """Listener rows of valid and test files: eight commas, then replies to rank."""
    rows = ed_rows()
    rows[1] += ",Oh no. Which one?|That is sad_comma_ sorry.|Tom_pipe_Tim"
    assert rows[1].count(",") == 8
    (tmp_path / "test.csv").write_text("\n".join([",".join(ED_COLUMNS), *rows]), encoding="utf-8")
    parsed = check_empathetic_dialogues(tmp_path / "test.csv")
    (dialogue,) = parsed.records
    assert parsed.problems == []
    assert [m.content for m in dialogue.conversation.messages] == [
        "I lost my cat, again", 'Oh no. "Which" one?', "Tom", "Poor Tom!"
    ]  # fmt: skip


ESCONV = {
    "experience_type": "Previous Experience", "emotion_type": "anxiety",
    "problem_type": "job crisis", "situation": "I may lose my job.",
    "survey_score": {"seeker": {"initial_emotion_intensity": "5", "empathy": "5",
                                "relevance": "5", "final_emotion_intensity": "1"},
                     "supporter": {"relevance": "5"}},
    "dialog": [
        {"speaker": "supporter", "annotation": {"strategy": "Others"}, "content": "Hello!\n"},
        {"speaker": "seeker", "annotation": {}, "content": "Hi, I am afraid.\n"},
        {"speaker": "seeker", "annotation": {"feedback": "4"}, "content": "Of my boss.\n"},
        {"speaker": "supporter", "annotation": {"strategy": "Reflection of feelings"},
         "content": "That is hard.\n"},
        {"speaker": "supporter", "annotation": {"strategy": "Question"}, "content": "Why?\n"},
    ],
    "seeker_question1": "Very kind.", "seeker_question2": "", "supporter_question1": "",
    "supporter_question2": "",
}  # fmt: skip
"""A record as the main file has them; the words are ours."""


def test_esconv_as_published_and_as_on_the_hub(tmp_path):
    """The same turns under the three spellings; several turns of one speaker stay several."""
    names = {"seeker": ("usr", "speaker"), "supporter": ("sys", "listener")}
    hub = ESCONV | {
        "dialog": [
            {"text": turn["content"], "speaker": names[turn["speaker"]][0]}
            | ({"strategy": s} if (s := turn["annotation"].get("strategy")) else {})
            for turn in ESCONV["dialog"]
        ]
    }
    failed = ESCONV | {
        "dialog": [t | {"speaker": names[t["speaker"]][1]} for t in ESCONV["dialog"]]
    }
    (tmp_path / "ESConv.json").write_text(json.dumps([ESCONV, failed], indent=1))
    written(tmp_path / "train.jsonl", [hub])
    records = [
        *check_records(tmp_path / "ESConv.json", "esconv").records,
        *check_records(tmp_path / "train.jsonl", "esconv").records,
    ]
    assert len(records) == 3
    for record in records:
        assert roles_and_words(record.document()) == [
            ("assistant", "Hello!"), ("user", "Hi, I am afraid."), ("user", "Of my boss."),
            ("assistant", "That is hard."), ("assistant", "Why?"),
        ]  # fmt: skip
        assert record.strategies == ("Others", None, None, "Reflection of feelings", "Question")


def test_esconv(tmp_path):
    record = {
        "experience_type": "Current", "emotion_type": "anxiety", "problem_type": "job crisis",
        "situation": "I may lose my job.", "survey_score": {},
        "dialog": [
            {"speaker": "seeker", "annotation": {}, "content": "Hi \n"},
            {"speaker": "supporter", "annotation": {"strategy": "Question"}, "content": "Hello"},
        ],
    }  # fmt: skip
    bad = json.loads(json.dumps(record).replace('"Question"', '"Joke"'))
    (tmp_path / "ESConv.json").write_text(json.dumps([record, bad], indent=2))
    parsed = check_records(tmp_path / "ESConv.json", "esconv")
    (found,) = parsed.records
    assert roles_and_words(found.document()) == HELLO
    assert (found.strategies, found.emotion, found.problem) == (
        (None, "Question"), "anxiety", "job crisis"
    )  # fmt: skip
    (problem,) = parsed.problems
    assert problem.what.startswith("dialog[1].strategy: 'Joke' is no label; allowed: Question")
    assert problem.line == 2 + json.dumps(record, indent=1).count("\n") + 1


CPED = "TV_ID,Dialogue_ID,Utterance_ID,Speaker,Gender,Age,Neuroticism,Extraversion,Openness," \
    "Agreeableness,Conscientiousness,Scene,FacePosition_LU,FacePosition_RD,Sentiment,Emotion,DA," \
    "Utterance"  # fmt: skip


def cped_row(number: int, speaker: str, emotion: str, text: str, traits: str = "high") -> str:
    person = ",".join(["female", "young", *[traits] * 5])
    return f"1,1_0,1_0_{number},{speaker},{person},car,0,0,negative,{emotion},question,{text}"


def test_cped_turns_become_spers_with_the_responders_big_five(tmp_path):
    rows = [
        cped_row(0, "甲", "worried", "怎么了"), cped_row(1, "甲", "worried", "撞车了吗"),
        cped_row(2, "乙", "depress", "撞你个头", "low"), cped_row(3, "甲", "negative-other", "哦"),
        cped_row(4, "乙", "anger", "走", "low"), cped_row(5, "丙", "anger", "嗯", "unknown"),
        cped_row(6, "甲", "glum", "啊"),
    ]  # fmt: skip
    (tmp_path / "cped.csv").write_text("\n".join([CPED, *rows]), encoding="utf-8-sig")
    parsed = check_cped(tmp_path / "cped.csv")
    assert [(r.statement, r.response, r.emotion, r.task) for r in parsed.records] == [
        ("怎么了，撞车了吗", "撞你个头", "worried", "SPER"),
        ("撞你个头", "哦", "sad", "SPER"),
    ]  # the answer to a negative-other and the one of an unknown person are left out
    first, second = parsed.records
    assert dict(first.circumstances.traits) == dict.fromkeys(TRAITS, "low")
    assert [(m.role, m.content) for m in second.history] == [("assistant", "怎么了，撞车了吗")]
    system = hed_conversation(first).messages[0].content
    assert all(words["low"].zh in system for words in TRAITS.values())
    assert "你们在车里" in system
    assert parse_hed(hed_row(second)) == second
    assert [str(p).split(":", 1)[1] for p in parsed.problems] == [
        "8:Emotion: 'glum' is no label; allowed: happy, grateful, positive-other, relaxed, "
        "neutral, anger, sadness, depress, fear, disgust, astonished, worried, negative-other"
    ]


def test_every_schema_gives_documents_and_those_with_pairs_give_pairs():
    assert len(read_documents(samples.path("sense7/sense7.xlsx"), "sense7")) == 48
    assert len(read_documents(samples.path("hed/hed.en.jsonl"), "hed")) == 320
    pairs = read_pairs(samples.path("eea/career.hard.jsonl"), "steered")
    assert len({pair.kind for pair in pairs}) > 1
    assert all(pair.prompt[0].role == "user" for pair in pairs)
    with pytest.raises(InputError, match="holds no preference pairs; allowed: hed, steered"):
        read_pairs("x", "messages")
    with pytest.raises(InputError, match="schema 'odd'; allowed: hed, "):
        read_documents("x", "odd")


LINES = st.lists(
    st.binary(max_size=60)
    | st.sampled_from([
        json.dumps({"messages": SAID}).encode(), b'{"messages": [{"role": "user"}]}',
        b'{"id": [], "prompt": "\\ud800", "completion": 5, "chosen": {}, "label": NaN}',
        ",".join(ED_COLUMNS).encode(), *map(str.encode, ed_rows()), b"\xef\xbb\xbf{}", b"\r", b"\0",
        CPED.encode(), cped_row(1, "a", "fear", "b").encode(), b'"', b"[" * 3000,
    ]),
    max_size=8,
)  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(LINES, st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx"]))
def test_no_file_crashes_any_reader(tmp_path_factory, lines, suffix):
    """Every schema, on every suffix: records, named problems, or one `InputError`."""
    file = tmp_path_factory.mktemp("fuzz") / f"x{suffix}"
    file.write_bytes(b"\n".join(lines))
    for schema in SCHEMAS.values():
        with contextlib.suppress(InputError):
            parsed = schema.check(file)
            assert all(problem.line >= 1 and ":" in problem.what for problem in parsed.problems)
            for record in parsed.records:
                schema.document(record)


def test_each_kind_of_damage_in_one_file_is_reported_and_the_rest_is_read(tmp_path):
    good = [json.dumps({"id": str(n), "messages": SAID}) for n in range(3)]
    damage = {
        "broken JSON": b'{"messages": [',
        "wrong type": b'{"messages": 5}',
        "huge string": json.dumps(
            {"messages": [{"role": "assistant", "content": "x" * 10_000_000}]}
        ).encode(),
        "control character": b'{"messages": [{"role": "assistant", "content": "a\\u0001"}]}',
        "lone surrogate": b'{"messages": [{"role": "assistant", "content": "\\udc80"}]}',
        "not UTF-8": b'{"messages": "\xff"}',
    }
    lines = [*[line.encode() for line in good], *damage.values()]
    random.Random(0).shuffle(lines)
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n\n".join(lines))
    parsed = check_records(file, "messages")
    assert sorted(record.id for record in parsed.records) == ["0", "1", "2"]
    assert [p.line for p in parsed.problems] == [
        1 + 2 * lines.index(line) for line in lines if line in damage.values()
    ]


def test_hed_refuses_a_bad_trait(tmp_path):
    row = hed_row(read_records(samples.path("hed/hed.en.jsonl"), "hed")[2]) | {
        "traits": {"openness": "some"}
    }
    (problem,) = check_records(written(tmp_path / "x.jsonl", [row]), "hed").problems
    assert problem.what == "traits.openness: 'some' is no label; allowed: high, low"

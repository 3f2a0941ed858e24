"""Recorded replies answer as the model did that was recorded."""

import json

import pytest

from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Message, Reply
from hen_jax.text.replay import recorded, replay

HI, BYE = (Message("user", "你好"),), (Message("system", "Be short."), Message("user", "Bye"))


def counting():
    told = iter(range(9))
    return lambda asked: [
        Reply(f"{next(told)} to {messages[-1].content}", 5, False, -0.5) for messages in asked
    ]


def test_what_was_recorded_is_replayed_each_reply_once(tmp_path):
    path = tmp_path / "said.jsonl"
    chat = recorded(counting(), path)
    said = chat([HI, BYE]) + chat([HI])
    again = replay(path)
    assert again([HI]) + again([BYE, HI]) == said
    with pytest.raises(InputError, match=r"has given all its replies to .*你好"):
        again([HI])
    with pytest.raises(InputError, match=r"has no reply to .*'Bye'"):
        again([BYE[1:]])


def test_a_line_by_hand_needs_no_numbers(tmp_path):
    path = tmp_path / "said.jsonl"
    row = {"reply": "Hi!", "messages": [{"content": "你好", "role": "user"}]}
    path.write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    assert replay(path)([HI]) == [Reply("Hi!")]


def test_half_a_surrogate_pair_is_replaced_as_an_endpoint_s_is(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text('{"messages": [], "reply": "\\ud83d! \\ud83d\\ude00"}\n', encoding="utf-8")
    assert replay(path)([()]) == [Reply("\ufffd! 😀")]


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens", "-5"), ("mean_log_prob", "NaN"), ("mean_log_prob", "-Infinity")],
)
def test_a_number_out_of_range_is_named(tmp_path, field, value):
    path = tmp_path / "said.jsonl"
    path.write_text(f'{{"messages": [], "reply": "x", "{field}": {value}}}\n', encoding="utf-8")
    with pytest.raises(InputError, match=rf"said\.jsonl:1: .*{field} is -?(5|nan|inf); allowed"):
        replay(path)


@pytest.mark.parametrize("line", ["{", "[]", '{"messages": []}', '{"messages": [], "reply": 1}'])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "said.jsonl"
    path.write_text("\n" + line, encoding="utf-8")
    with pytest.raises(InputError, match=r"said\.jsonl:2: no recorded reply"):
        replay(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl"):
        replay(tmp_path / "none.jsonl")

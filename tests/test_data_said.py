"""Records as other toolkits document them: what they say is in the tokens, or a key is refused.

Each row below has the shape of an example in the documentation of TRL, LLaMA-Factory, axolotl,
ms-swift, OpenAI or of a ShareGPT file; the words are ours.
"""

import json

import chat_templates as templates
import pytest
from test_text_formats import format_of, tokenizer_of

from hen_jax.core.errors import InputError
from hen_jax.data.examples import encode
from hen_jax.data.schemas import SCHEMAS, read_documents, read_pairs
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.verbs.data.checking import validate

U, A = {"role": "user", "content": "asked"}, {"role": "assistant", "content": "replied"}
H, G = {"from": "human", "value": "asked"}, {"from": "gpt", "value": "replied"}
BASE = ["asked", "replied*"]

RENDERED = {
    # schema, row, what is said in order; what trains ends in *
    "trl messages": ("messages", {"messages": [U, A]}, BASE),
    "trl system turn": ("messages", {"messages": [{"role": "system", "content": "sys"}, U, A]},
                        ["sys", *BASE]),
    "trl prompt completion": ("completion", {"prompt": "asked", "completion": "replied"}, BASE),
    "trl conversational completion": ("completion", {"prompt": [U], "completion": [A]}, BASE),
    "trl thinking": ("messages", {"messages": [U, {**A, "thinking": "hm"}]},
                     ["asked", "hm*", "replied*"]),
    "deepseek reasoning_content": ("messages", {"messages": [U, {**A, "reasoning_content": "hm"}]},
                                   ["asked", "hm*", "replied*"]),
    "two thoughts after the last question": (
        "messages",
        {"messages": [U, {**A, "thinking": "one"}, {**A, "content": "more", "thinking": "two"}]},
        ["asked", "one*", "replied*", "two*", "more*"]),
    "trl no tools": ("messages", {"messages": [U, A], "tools": None, "images": []}, BASE),
    "trl chat_template_kwargs": (
        "messages", {"messages": [U, A], "chat_template_kwargs": {"enable_thinking": False}}, BASE),
    "trl text parts": ("messages", {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "asked"}]}, A]}, BASE),
    "openai weight": ("messages", {"messages": [U, {**A, "weight": 0}, U, {**A, "weight": 1}]},
                      ["asked", "replied", "asked", "replied*"]),
    "openai name": ("messages", {"messages": [{**U, "name": "Ann"}, A]}, BASE),
    "null-filled": ("messages", {"messages": [
        {**U, "tool_calls": None, "reasoning_content": None},
        {**A, "tool_calls": None, "train": None}], "conversations": None, "id": None}, BASE),
    "axolotl training": ("messages", {"messages": [
        {**U, "training": False}, {**A, "training": False}, {**U, "training": False},
        {**A, "training": True}]}, ["asked", "replied", "asked", "replied*"]),
    "axolotl train": ("sharegpt", {"conversations": [H, {**G, "train": False}, H, G]},
                      ["asked", "replied", "asked", "replied*"]),
    "ms-swift loss": ("messages", {"messages": [U, {**A, "loss": False}, U, {**A, "loss": True}]},
                      ["asked", "replied", "asked", "replied*"]),
    "masked": ("messages", {"messages": [U, {**A, "masked": True}, U, {**A, "masked": False}]},
               ["asked", "replied", "asked", "replied*"]),
    "flag as text": ("messages", {"messages": [U, {**A, "train": "False"}, U, A]},
                     ["asked", "replied", "asked", "replied*"]),
    "sharegpt": ("sharegpt", {"conversations": [H, G], "id": "a", "lang": "en"}, BASE),
    "sharegpt system": ("sharegpt", {"system": "sys", "conversations": [H, G], "tools": ""},
                        ["sys", *BASE]),
    "sharegpt system twice alike": (
        "sharegpt", {"system": "sys", "conversations": [{"from": "system", "value": "sys"}, H, G]},
        ["sys", *BASE]),
    "conversations with role": ("sharegpt", {"conversations": [U, A]}, BASE),
    "messages with from": ("messages", {"messages": [H, G]}, BASE),
    "llama-factory openai system": ("messages", {"messages": [U, A], "system": "sys"},
                                    ["sys", *BASE]),
    "alpaca": ("alpaca", {"instruction": "asked", "input": "", "output": "replied"}, BASE),
    "alpaca input": ("alpaca", {"instruction": "asked", "input": "given", "output": "replied"},
                     ["asked\ngiven", "replied*"]),
    "llama-factory alpaca": (
        "alpaca",
        {"instruction": "asked", "input": "", "output": "replied", "system": "sys",
         "history": [["once", "answered"]]},
        ["sys", "once", "answered*", *BASE]),
    "completion history": (
        "completion", {"prompt": "asked", "completion": "replied", "history": [["once", "said"]]},
        ["once", "said*", *BASE]),
    "completion system": ("completion", {"system": "sys", "prompt": "asked",
                                         "completion": "replied"}, ["sys", *BASE]),
    "bracket": ("completion", {"prompt": "[sighs] asked", "completion": "[1] replied"},
                ["[sighs] asked", "[1] replied*"]),
    "reply that is JSON": ("completion", {"prompt": "asked", "completion": '[{"a": 1}]'},
                           ["asked", '[{"a": 1}]*']),
    "ultrachat": ("messages", {"prompt": "asked", "prompt_id": "9", "messages": [U, A]}, BASE),
    "rating with system": ("rating", {"messages": [U, A], "system": "sys", "rating": "4"},
                           ["sys", *BASE]),
    "label as text": ("label", {"prompt": "asked", "completion": "replied", "label": "FALSE"},
                      BASE),
    "tool role": (
        "messages",
        {"messages": [U, {**A, "content": "call"}, {"role": "tool", "content": "7"}, A]},
        ["asked", "call*", "7", "replied*"]),
    "llama-factory observation": (
        "sharegpt", {"conversations": [H, {"from": "observation", "value": "7"}, G]},
        ["asked", "7", "replied*"]),
    "llama-factory kto": ("label", {"messages": [U, A], "kto_tag": True}, BASE),
    "llama-factory alpaca kto": (
        "label", {"instruction": "asked", "output": "replied", "kto_tag": False}, BASE),
}  # fmt: skip

REFUSED = {
    # schema, row, the beginning of the message
    "tools": ("messages", {"messages": [U, A], "tools": [{"type": "function"}]}, "tools: no chat"),
    "tools as text": ("sharegpt", {"conversations": [H, G], "tools": '[{"name": "w"}]'}, "tools: "),
    "functions": ("messages", {"messages": [U, A], "functions": [{"name": "w"}]}, "functions: "),
    "tool_calls": ("messages", {"messages": [U, {**A, "tool_calls": [{"type": "function"}]}]},
                   "messages[1].tool_calls: no chat"),
    "function_call": ("messages", {"messages": [U, {**A, "function_call": {"name": "w"}}]},
                      "messages[1].function_call: "),
    "tool that trains": ("messages", {"messages": [U, {"role": "tool", "content": "7",
                                                       "train": True}, A]},
                         "messages[1].train: only replies train"),
    "llama-factory function_call": (
        "sharegpt", {"conversations": [H, {"from": "function_call", "value": "7"}, G]},
        "conversations[1].from: 'function_call' is no label"),
    "images": ("messages", {"messages": [U, A], "images": ["a.jpg"]}, "images: only text"),
    "videos": ("messages", {"messages": [U, A], "videos": ["a.mp4"]}, "videos: only text"),
    "audios": ("messages", {"messages": [U, A], "audios": ["a.wav"]}, "audios: only text"),
    "image part": ("messages", {"messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "asked"}]}, A]},
        "messages[0].content[0]: a part of type 'image'"),
    "openai audio": ("messages", {"messages": [U, {**A, "audio": {"id": "9"}}]},
                     "messages[1].audio: only text"),
    "openai refusal": ("messages", {"messages": [U, {**A, "refusal": "no"}]},
                       "messages[1].refusal: "),
    "openai weight of a half": ("messages", {"messages": [U, {**A, "weight": 0.5}]},
                                "messages[1].weight: 0.5; allowed: true, false, 1 or 0"),
    "history beside messages": ("messages", {"messages": [U, A], "history": [["a", "b"]]},
                                "history: beside messages"),
    "history of single texts": (
        "completion", {"prompt": "asked", "completion": "replied", "history": ["a"]},
        "history[0]: no pair"),
    "two system texts": (
        "sharegpt", {"system": "one", "conversations": [{"from": "system", "value": "two"}, H, G]},
        "system: conversations begins with another"),
    "system_prompt": ("sharegpt", {"system_prompt": "one", "conversations": [H, G]},
                      "system_prompt: call the column `system`"),
    "axolotl user trains": ("messages", {"messages": [{**U, "training": True}, A]},
                            "messages[0].training: only replies train"),
    "axolotl train_detail": (
        "messages", {"messages": [U, {**A, "train_detail": [{"begin_offset": 0, "end_offset": 3,
                                                             "train": False}]}]},
        "messages[1].train_detail: a turn trains whole"),
    "axolotl segments": ("messages", {"segments": [{"label": True, "text": "asked"}]},
                         "segments: text without a chat format"),
    "flags that contradict": ("messages", {"messages": [U, {**A, "train": True, "masked": True}]},
                              "messages[1].train and masked: contradict"),
    "no reply trains": ("messages", {"messages": [U, {**A, "weight": 0}]},
                        "messages: no reply is marked to train"),
    "thought of a user": ("messages", {"messages": [{**U, "thinking": "hm"}, A]},
                          "messages[0].role: a turn of the user with a thought"),
    "thoughts that differ": (
        "messages", {"messages": [U, {**A, "thinking": "one", "reasoning_content": "two"}]},
        "messages[1].reasoning_content and thinking: differ"),
    "row of weight 2": ("messages", {"messages": [U, A], "weight": 2}, "weight: rows weigh alike"),
    "row that does not train": ("messages", {"messages": [U, A], "train": False}, "train: marks a"),
    "loss_mask": ("messages", {"messages": [U, A], "loss_mask": [0, 1]}, "loss_mask: "),
    "nemo mask": ("sharegpt", {"conversations": [H, G], "mask": "Assistant"}, "mask: "),
    "pre-tokenised": ("messages", {"messages": [U, A], "input_ids": [1, 2]}, "input_ids: rows are"),
    "chat_template_kwargs": (
        "messages", {"messages": [U, A], "chat_template_kwargs": {"enable_thinking": True}},
        "chat_template_kwargs: "),
    "documents": ("messages", {"messages": [U, A], "documents": [{"text": "x"}]}, "documents: "),
    "harmony channel": ("messages", {"messages": [U, {**A, "channel": "analysis"}]},
                        "messages[1].channel: "),
    "deepseek prefix": ("messages", {"messages": [U, {**A, "prefix": True}]}, "messages[1].prefix"),
    "kto as conversation": ("completion", {"prompt": "asked", "completion": "x", "label": False},
                            "label: says whether the reply is good"),
    "llama-factory pair as conversation": (
        "sharegpt", {"conversations": [H, G, H], "chosen": G, "rejected": G},
        "chosen: a preference pair"),
    "ms-swift pair": ("messages", {"messages": [U, A], "rejected_response": "x"},
                      "rejected_response: is half"),
    "margin of the worse": ("preference", {"prompt": "a", "chosen": "b", "rejected": "c",
                                           "margin": -2.0}, "margin: -2.0; allowed: a"),
    "shares of more than all": ("preference", {"prompt": "a", "chosen": "b", "rejected": "c",
                                               "share": 0.8, "tie": 0.4}, "share: 0.8 and tie:"),
    "images of a pair": ("preference", {"prompt": "a", "chosen": "b", "rejected": "c",
                                        "images": ["a.jpg"]}, "images: only text"),
}  # fmt: skip


def lines(path, *rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


@pytest.mark.parametrize("name", RENDERED)
def test_what_a_record_says_is_in_the_tokens_and_trains_as_it_says(tmp_path, name):
    schema, row, said = RENDERED[name]
    tokenizer, chat_format = tokenizer_of("qwen3"), format_of("qwen3")
    documents = read_documents(lines(tmp_path / "x.jsonl", row), schema)
    (example,) = encode(documents, ChatTokenizer(tokenizer, chat_format), max_length=999).examples
    text, trained = tokenizer.decode(example.tokens), tokenizer.decode(example.tokens[example.mask])
    place = done = 0
    for one in said:
        words = one.removesuffix("*")
        place = text.index(words, place) + len(words)
        if one.endswith("*"):
            done = trained.index(words, done) + len(words)
    assert trained.count("replied") == sum("replied*" in one for one in said)
    assert text.count("<|im_start|>") == len([one for one in said if one not in THOUGHTS])


THOUGHTS = ("hm*", "one*", "two*")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_rendered_is_refused_by_name(tmp_path, name):
    schema, row, message = REFUSED[name]
    (problem,) = SCHEMAS[schema].check(lines(tmp_path / "x.jsonl", row)).problems
    assert str(problem).startswith(f"{tmp_path}/x.jsonl:1:{message}")


def test_a_thought_without_a_place_is_refused_with_its_record(tmp_path):
    file = lines(tmp_path / "x.jsonl", {"messages": [U, {**A, "thinking": "hm"}]})
    chat = ChatTokenizer(tokenizer_of("smollm2"), format_of("smollm2"))
    with pytest.raises(InputError, match=r"record x.jsonl:1: a reply has a thought .*'chatml'"):
        encode(read_documents(file, "messages"), chat, max_length=99)


PAIRS = {
    "trl": {"prompt": "asked", "chosen": "good", "rejected": "bad"},
    "trl conversational": {"prompt": [U], "chosen": [{**A, "content": "good"}],
                           "rejected": [{**A, "content": "bad"}]},
    "llama-factory sharegpt": {"conversations": [H], "chosen": {"from": "gpt", "value": "good"},
                               "rejected": {"from": "gpt", "value": "bad"}},
    "llama-factory alpaca": {"instruction": "asked", "input": "", "chosen": "good",
                             "rejected": "bad"},
    "ultrafeedback_binarized": {
        "prompt": "asked", "messages": [U, {**A, "content": "good"}], "score_chosen": 8.0,
        "chosen": [U, {**A, "content": "good"}], "rejected": [U, {**A, "content": "bad"}]},
    "bracket": {"prompt": "asked", "chosen": "good", "rejected": "bad", "system": None},
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_shape_are_one_pair(tmp_path, name):
    file = lines(tmp_path / "x.jsonl", PAIRS[name], PAIRS[name] | {"system": "sys"})
    for pair, head in zip(read_pairs(file, "preference"), ([], ["sys"]), strict=True):
        assert [m.content for m in pair.prompt] == [*head, "asked"]
        assert [[m.content for m in side] for side in (pair.chosen, pair.rejected)] == [
            ["good"], ["bad"]
        ]  # fmt: skip


def test_good_rows_keep_what_they_say_and_ignored_columns_are_counted(tmp_path, capsys):
    rows = [
        {"messages": [U, {**A, "thinking": "hm", "train": True}], "lnag": "en", "tools": []}
    ] * 2
    rows[1] = json.loads(json.dumps(rows[1]))
    rows[1]["messages"][0]["time"] = "now"
    validate(lines(tmp_path / "x.jsonl", *rows), "messages", tmp_path / "out")
    good = (tmp_path / "out/good.jsonl").read_text()
    assert [json.loads(line) for line in good.splitlines()] == rows
    assert "not read: lnag (2 rows), messages.time (1 rows)" in capsys.readouterr().out


def test_the_template_of_the_tests_writes_thoughts():
    assert "reasoning_content" in templates.QWEN3

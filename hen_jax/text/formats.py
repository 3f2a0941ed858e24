"""How each model family writes a conversation down: one row of data for each way.

A row is true of a tokenizer only if `hen_jax.text.detect` finds that it writes what the tokenizer's
own template writes. Three things are ours, as the templates leave no place for them; all three
give what the template would give for the conversation so changed:

* where speakers must alternate, two turns of one speaker are joined by a line feed, and a
  conversation that the assistant opens gets an empty turn of the user before it;
* where a template refuses a system message, it stands at the head of the first user turn, as newer
  templates of the same family put it;
* where a template writes the system message into the last user turn, and only while that turn has
  no answer (Mistral's v3), it stays there in an answered conversation too.
"""

import dataclasses
from typing import Literal

from hen_jax.text.turns import ChatFormat, ReplyTurn, Tools, Turn, with_tokens


def _tagged(
    header: str, stop: str, after: str = "", *, trim: bool = False
) -> tuple[Turn, ReplyTurn, Turn]:
    """Turns of all three roles that differ in the name in their header."""
    user, assistant, system = (header.replace("{role}", r) for r in ("user", "assistant", "system"))
    cut: Literal["no", "said"] = "said" if trim else "no"
    return (
        Turn(user, stop + after, cut),
        ReplyTurn(assistant, stop, after, trim=trim),
        Turn(system, stop + after, cut),
    )


_LLAMA3 = _tagged("<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", trim=True)
_LLAMA3_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
_AT_HEAD = Turn("", "\n\n")

FORMATS: tuple[ChatFormat, ...] = (
    # Also SmolLM2, Qwen2 and Qwen2.5: these say something by default, which detection finds.
    ChatFormat("chatml", *_tagged("<|im_start|>{role}\n", "<|im_end|>", "\n")),
    ChatFormat("qwen3", *_tagged("<|im_start|>{role}\n", "<|im_end|>", "\n"), thinks=True),
    ChatFormat("phi4", *_tagged("<|im_start|>{role}<|im_sep|>", "<|im_end|>")),
    ChatFormat("phi3", *_tagged("<|{role}|>\n", "<|end|>", "\n"), end="<|endoftext|>"),
    ChatFormat("llama3", *_LLAMA3, begin="<|begin_of_text|>"),
    ChatFormat(
        "llama3.1",
        *_LLAMA3[:2],
        dataclasses.replace(_LLAMA3[2], before=_LLAMA3[2].before + _LLAMA3_DATES),
        begin="<|begin_of_text|>",
        default_system="",
    ),
    ChatFormat(
        "gemma",
        user=Turn("<start_of_turn>user\n", "<end_of_turn>\n", trim="said"),
        assistant=ReplyTurn("<start_of_turn>model\n", "<end_of_turn>", "\n", trim=True),
        system=_AT_HEAD,
        system_in="first_user",
        begin="<bos>",
        alternates=True,
    ),
    ChatFormat(
        "llama2",
        user=Turn("<s>[INST] ", " [/INST]", trim="turn"),
        assistant=ReplyTurn("", " </s>", lead=" ", trim=True),
        system=Turn("<<SYS>>\n", "\n<</SYS>>\n\n"),
        system_in="first_user",
        alternates=True,
    ),
    ChatFormat(
        "mistral-v1-first",
        user=Turn("[INST] ", " [/INST]"),
        assistant=ReplyTurn("", "</s>"),
        system=_AT_HEAD,
        system_in="first_user",
        begin="<s>",
        alternates=True,
    ),
    ChatFormat(
        "mistral-v1",
        user=Turn(" [INST] ", " [/INST]"),
        assistant=ReplyTurn("", "</s>", lead=" "),
        system=_AT_HEAD,
        system_in="first_user",
        begin="<s>",
        alternates=True,
    ),
    ChatFormat(
        "mistral-v3",
        user=Turn("[INST] ", "[/INST]"),
        assistant=ReplyTurn("", "</s>", lead=" ", trim=True),
        system=_AT_HEAD,
        system_in="last_user",
        begin="<s>",
        alternates=True,
    ),
    ChatFormat(
        "mistral-v3-tekken",
        user=Turn("[INST]", "[/INST]"),
        assistant=ReplyTurn("", "</s>"),
        system=_AT_HEAD,
        system_in="last_user",
        begin="<s>",
        alternates=True,
    ),
    ChatFormat(
        "mistral-v7",
        user=Turn("[INST] ", "[/INST]"),
        assistant=ReplyTurn("", "</s>", lead=" "),
        system=Turn("[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"),
        begin="<s>",
    ),
    ChatFormat(
        "mistral-v7-tekken",
        user=Turn("[INST]", "[/INST]"),
        assistant=ReplyTurn("", "</s>"),
        system=Turn("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        begin="<s>",
        alternates=True,
    ),
    # Also TinyLlama and StableLM.
    ChatFormat("zephyr", *_tagged("<|{role}|>\n", "{eos}", "\n")),
    ChatFormat("phi4-mini", *_tagged("<|{role}|>", "<|end|>"), end="<|endoftext|>"),
    ChatFormat(
        "granite", *_tagged("<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>", "\n")
    ),
    # Also Hermes 3, LFM2 and other ChatML behind a token of the text's beginning.
    ChatFormat("internlm2", *_tagged("<|im_start|>{role}\n", "<|im_end|>", "\n"), begin="{bos}"),
    *(  # OLMo 2 and some of Tulu 3; Falcon 3
        ChatFormat(
            name,
            user=Turn("<|user|>\n", "\n"),
            assistant=ReplyTurn("<|assistant|>\n", "{eos}", "\n"),
            system=Turn("<|system|>\n", "\n"),
            begin=begin,
            open_end=True,
        )
        for name, begin in (("tulu", "{bos}"), ("falcon3", ""))
    ),
    ChatFormat(
        "command-r",
        user=Turn("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>", trim="said"),
        assistant=ReplyTurn(
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>", trim=True
        ),
        system=Turn("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        begin="<BOS_TOKEN>",
        alternates=True,
    ),
    ChatFormat(
        "deepseek-v3",
        user=Turn("<｜User｜>", ""),
        assistant=ReplyTurn("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        system=Turn("", ""),
        begin="<｜begin▁of▁sentence｜>",
    ),
    ChatFormat(
        "openchat",
        user=Turn("GPT4 Correct User: ", "<|end_of_turn|>"),
        assistant=ReplyTurn("GPT4 Correct Assistant:", "<|end_of_turn|>", lead=" "),
        system=Turn("GPT4 Correct System: ", "<|end_of_turn|>"),
        begin="<s>",
    ),
    ChatFormat(
        "yi",
        user=Turn("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=ReplyTurn("<|im_start|>assistant\n", "<|im_end|>", "\n"),
        system=Turn("", ""),
    ),
    ChatFormat("seallm", *_tagged("<|im_start|>{role}\n", "{eos}", "\n")),
    ChatFormat(
        "sailor",
        user=Turn("<|im_start|>question\n", "<|im_end|>\n"),
        assistant=ReplyTurn("<|im_start|>answer\n", "<|im_end|>", "\n"),
        system=Turn("<|im_start|>system\n", "<|im_end|>\n"),
    ),
    ChatFormat(
        "vicuna",
        user=Turn(" USER: ", "", trim="said"),
        assistant=ReplyTurn(" ASSISTANT:", "{eos}", lead=" ", trim=True),
        system=Turn("", ""),
        alternates=True,
    ),
    ChatFormat(
        "llama4",
        *_tagged("<|header_start|>{role}<|header_end|>\n\n", "<|eot|>", trim=True),
        begin="<|begin_of_text|>",
    ),
    ChatFormat(
        "openchat-3.6",
        user=Turn(
            "<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\n", "<|eot_id|>", trim="said"
        ),
        assistant=ReplyTurn(
            "<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
            trim=True,
        ),
        system=Turn("<|start_header_id|>System<|end_header_id|>\n\n", "<|eot_id|>", trim="said"),
        begin="<|begin_of_text|>",
    ),
    ChatFormat(
        "deepseek-v2",
        user=Turn("User: ", "\n\n"),
        assistant=ReplyTurn("Assistant:", "{eos}", lead=" "),
        system=Turn("", "\n\n"),
        begin="{bos}",
    ),
    ChatFormat(
        "exaone",
        user=Turn("[|user|]", "\n"),
        assistant=ReplyTurn("[|assistant|]", "[|endofturn|]", "\n"),
        system=Turn("[|system|]", "[|endofturn|]\n"),
    ),
    ChatFormat(
        "tulu2",
        user=Turn("<|user|>\n", "\n"),
        assistant=ReplyTurn("<|assistant|>\n", "{eos}", "\n"),
        system=Turn("<|system|>\n", "\n"),
    ),
    ChatFormat(  # H2O
        "danube",
        user=Turn("<|prompt|>", "{eos}"),
        assistant=ReplyTurn("<|answer|>", "{eos}"),
        system=_AT_HEAD,
        system_in="first_user",
        alternates=True,
    ),
    ChatFormat(
        "kimi",
        user=Turn("<|im_user|>user<|im_middle|>", "<|im_end|>"),
        assistant=ReplyTurn("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
        system=Turn("<|im_system|>system<|im_middle|>", "<|im_end|>"),
    ),
    ChatFormat(
        "hunyuan",
        user=Turn("<｜hy_User｜>", ""),
        assistant=ReplyTurn("<｜hy_Assistant｜>", "{eos}"),
        system=Turn("", "<｜hy_place▁holder▁no▁3｜>"),
        begin="{bos}",
    ),
    ChatFormat(
        "alpaca",
        user=Turn("### Instruction:\n", "\n\n"),
        assistant=ReplyTurn("### Response:\n", "{eos}", "\n\n"),
        system=Turn("", "\n\n"),
        begin="{bos}",
    ),
)
"""Every format there is to detect. A new family is a new row.

`{bos}` and `{eos}` stand for the tokenizer's own, where models of one format differ in them.
"""


CHATML = FORMATS[0]


def format_named(
    name: str, bos: str | None, eos: str | None, default_system: str | None, tools: Tools
) -> ChatFormat:
    """One of `FORMATS` as a tokenizer with these tokens uses it."""
    (found,) = (one for one in FORMATS if one.name == name)
    found = with_tokens(found, bos, eos)
    return dataclasses.replace(found, default_system=default_system, tools=tools)

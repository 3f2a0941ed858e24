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


@dataclasses.dataclass(frozen=True)
class Turn:
    """What stands around the words of the system or the user; may hold control tokens."""

    before: str
    after: str
    trim: Literal["no", "said", "turn"] = "no"
    """Whether white space around the words is dropped; "turn": around the words with whatever
    system message was written into their turn."""


@dataclasses.dataclass(frozen=True)
class ReplyTurn:
    """What stands around the words of the assistant. `lead`, the words and `stop` train."""

    before: str  # ends the prompt
    stop: str  # ends with the control token at which generation ends
    after: str = ""
    lead: str = ""  # what the model itself writes before the first word
    trim: bool = False


@dataclasses.dataclass(frozen=True)
class ToolTurn:
    """What stands around what a tool answered."""

    before: str
    after: str
    between: str | None = None  # two answers in a row with this between them are one turn
    trim: bool = False
    quoted: bool = False  # the answer is written as a JSON string


Tools = Literal["refused", "own", "user", "quoted"]
"""Where the template puts a tool's answer: nowhere; in a turn of the role `tool`; in a turn of the
user between `<tool_response>` tags (Qwen2.5, Qwen3); quoted in a turn of `ipython` (Llama 3.1)."""


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """How a conversation becomes text."""

    name: str
    user: Turn
    assistant: ReplyTurn
    system: Turn
    system_in: Literal["turn", "first_user", "last_user"] = "turn"
    default_system: str | None = None  # said when a conversation has no system message
    begin: str = ""
    end: str = ""  # closes an answered conversation; does not train
    open_end: bool = False  # what follows a reply's stop is left out at the very end
    alternates: bool = False  # the user begins, and speakers take turns
    tools: Tools = "refused"  # detection finds it
    thinks: bool = False  # the last reply stands after a block of thought, which may be empty


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
    ChatFormat("internlm2", *_tagged("<|im_start|>{role}\n", "<|im_end|>", "\n"), begin="<s>"),
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
)
"""Every format there is to detect. A new family is a new row.

`{bos}` and `{eos}` stand for the tokenizer's own, where models of one format differ in them.
"""


def with_tokens(chat_format: ChatFormat, bos: str | None, eos: str | None) -> ChatFormat:
    """The format of a tokenizer with these tokens."""

    def filled(text: str) -> str:
        return text.replace("{bos}", bos or "").replace("{eos}", eos or "")

    reply = chat_format.assistant
    return dataclasses.replace(
        chat_format,
        begin=filled(chat_format.begin),
        assistant=dataclasses.replace(reply, stop=filled(reply.stop)),
        user=dataclasses.replace(chat_format.user, after=filled(chat_format.user.after)),
        system=dataclasses.replace(chat_format.system, after=filled(chat_format.system.after)),
    )


CHATML = FORMATS[0]


def tool_turn(chat_format: ChatFormat) -> ToolTurn | None:
    """How the format writes a tool's answer; None where it has no place for one."""
    user = chat_format.user
    if chat_format.tools == "user":
        begin, end = "<tool_response>\n", "\n</tool_response>"
        return ToolTurn(user.before + begin, end + user.after, between=f"{end}\n{begin}")
    if chat_format.tools == "quoted":
        return ToolTurn(user.before.replace("user", "ipython"), user.after, quoted=True)
    if chat_format.tools == "own":
        trim = user.trim == "said"
        return ToolTurn(user.before.replace("user", "tool"), user.after, trim=trim)
    return None


def format_named(
    name: str, bos: str | None, eos: str | None, default_system: str | None, tools: Tools
) -> ChatFormat:
    """One of `FORMATS` as a tokenizer with these tokens uses it."""
    (found,) = (one for one in FORMATS if one.name == name)
    found = with_tokens(found, bos, eos)
    return dataclasses.replace(found, default_system=default_system, tools=tools)

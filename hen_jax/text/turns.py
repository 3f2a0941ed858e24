"""The parts of a chat format: what stands around what each speaker says."""

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

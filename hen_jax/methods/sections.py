"""Replies of a fixed form: each line begins with a key and a colon, and all keys stand once."""

import re
from collections.abc import Sequence

from hen_jax.text.conversation import Message

_Messages = tuple[Message, ...]


def parse_sections(text: str, keys: Sequence[str]) -> dict[str, str] | None:
    """The text behind each key, which may run over several lines; None unless every key stands
    once, in this order, with something behind it.

    `parse_sections("Cause: rain\\nReply: Come in.", ("Cause", "Reply"))` gives both. Case, bold
    marks (`**Cause:**`) and a full-width colon are no matter.
    """
    found = list(_key(keys).finditer(text))
    lower = [one[1].lower() for one in found]
    if lower != [key.lower() for key in keys]:
        return None
    ends = [*(one.start() for one in found[1:]), len(text)]
    said = [text[one.end() : end].strip() for one, end in zip(found, ends, strict=True)]
    return dict(zip(keys, said, strict=True)) if all(said) else None


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the first line of a reply is; case, quotes and a full stop are no matter.

    A line that says more than one label, or a sentence around it, is none.
    """
    first = text.strip().split("\n", 1)[0].strip(" \t\"'*.。`“”")
    named = {label.lower(): label for label in labels}
    return named.get(first.lower())


def listed(text: str) -> list[str]:
    """The items of a list that commas, semicolons or their Chinese kin divide; `none` is empty."""
    items = [one.strip(" \t\"'.。-*") for one in re.split(r"[,;，；、\n]", text)]
    return [one for one in items if one and one.lower() not in ("none", "无", "没有")]


def with_system(messages: _Messages, text: str) -> _Messages:
    """The messages with `text` at the end of their system message, which is made if need be."""
    if messages[0].role == "system":
        head = Message("system", f"{messages[0].content}\n\n{text}")
        return (head, *messages[1:])
    return (Message("system", text), *messages)


def is_chinese_text(messages: Sequence[Message]) -> bool:
    """Whether the user's last turn has a CJK ideograph: which language a method speaks to it."""
    return any("\u4e00" <= letter <= "\u9fff" for letter in messages[-1].content)


def _key(keys: Sequence[str]) -> re.Pattern[str]:
    named = "|".join(map(re.escape, keys))
    return re.compile(rf"^[ \t]*+[*#\-\d.)]*+[ \t]*+\**+({named})\**[ \t]*[:：]\**", re.I | re.M)

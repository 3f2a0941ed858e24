"""Which chat format a tokenizer's own template follows, found by trying."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from hen_jax.core.errors import InputError
from hen_jax.text.chat import render, render_prompt
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.formats import FORMATS
from hen_jax.text.tokenizer import ChatTokenizer, load_tokenizer
from hen_jax.text.turns import ChatFormat, Tools, with_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_HELLO = Message("user", "Hello there, 12 of you?")
_REPLY = Message("assistant", "  Hi!\n\n- 你好，\n  3 of us. ")
_KIND = Message("system", "Be kind.\n")
_PROBES: tuple[tuple[Message, ...], ...] = (
    (_HELLO, _REPLY),
    (_KIND, _HELLO, _REPLY),
    (_HELLO, _REPLY, Message("user", "\nAnd you?"), Message("assistant", "Fine.")),
    (_KIND, _HELLO, _REPLY, Message("user", " And you?\n"), Message("assistant", "Fine.")),
)

_FOUND = Message("tool", ' {"seats": 3, "一": "\\""}\n')
_TOOL_PROBES = (
    (_HELLO, Message("assistant", "I look."), _FOUND, _REPLY),
    (_KIND, _HELLO, Message("assistant", "I look."), _FOUND, Message("tool", "7"), _REPLY),
)

SETTINGS: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""The arguments of `apply_chat_template` under which our ids equal its ids.

Llama 3.2's template would write the date of today: the same text must give the same ids tomorrow.
"""


def open_chat_tokenizer(folder: Path) -> ChatTokenizer:
    """The tokenizer of a model folder and the chat format its template follows."""
    tokenizer = load_tokenizer(folder)
    return ChatTokenizer(tokenizer, detect_format(tokenizer))


def detect_format(
    tokenizer: "PreTrainedTokenizerFast", formats: Sequence[ChatFormat] = FORMATS
) -> ChatFormat:
    """The format that writes probe conversations exactly as the tokenizer's own template does.

    What the template says where there is no system message becomes its `default_system`, and where
    it writes what tools answer its `tools`.

    Raises:
      InputError: the tokenizer has no chat template, or no known format equals it.
    """
    if tokenizer.chat_template is None:
        raise InputError(
            "this tokenizer has no chat template; use an instruction-tuned model, or add its "
            "chat_template.jinja to the model folder"
        )
    for chat_format in formats:
        bos, eos = cast(str | None, tokenizer.bos_token), cast(str | None, tokenizer.eos_token)
        chat_format = with_tokens(chat_format, bos, eos)
        chat_format = _with_default_system(tokenizer, chat_format)
        if _equals_template(tokenizer, chat_format):
            return _with_tools(tokenizer, chat_format)
    raise InputError(
        "this tokenizer's chat template is none of the known formats "
        f"({', '.join(chat_format.name for chat_format in formats)}); "
        "give the folder a chat_template.jinja of one of these, or continue plain text with "
        "`hen generate --raw`"
    )


def _with_default_system(
    tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat
) -> ChatFormat:
    if chat_format.system_in != "turn" or chat_format.default_system is not None:
        return chat_format
    text = _template(tokenizer, (_HELLO, _REPLY), prompt=False, tokenize=False)
    before = chat_format.begin + chat_format.system.before
    after = chat_format.system.after + chat_format.user.before + _HELLO.content
    if not isinstance(text, str) or not text.startswith(before) or after not in text:
        return chat_format
    said = text[len(before) : text.index(after)]
    return dataclasses.replace(chat_format, default_system=said)


def _with_tools(tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat) -> ChatFormat:
    """The format with the place that the template has for what tools answer, if it has one."""
    for tools in get_args(Tools):
        found = dataclasses.replace(chat_format, tools=tools)
        if tools != "refused" and _equals_template(tokenizer, found, _TOOL_PROBES):
            return found
    return chat_format


def _equals_template(
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
    probes: Sequence[tuple[Message, ...]] = _PROBES,
) -> bool:
    try:
        return all(
            _agree(tokenizer, chat_format, messages, prompt=prompt)
            for probe in probes
            for messages, prompt in [(probe, False), (probe[:-1], True)]
        )
    except InputError:
        return False  # this format's control tokens are not in this tokenizer


def _agree(
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
    messages: tuple[Message, ...],
    *,
    prompt: bool,
) -> bool:
    theirs = _template(tokenizer, messages, prompt=prompt, tokenize=True)
    if messages[0].role == "system" and chat_format.system_in != "turn":
        if theirs is None:
            return True  # the template has no place for a system message, and ours is our own
        if chat_format.system_in == "last_user" and not prompt:
            return True  # the template leaves it out of an answered conversation
    ours = ChatTokenizer(tokenizer, chat_format)
    if prompt:
        return render_prompt(messages, ours).tolist() == theirs
    return render(Conversation(messages), ours).tokens.tolist() == theirs


def _template(
    tokenizer: "PreTrainedTokenizerFast",
    messages: tuple[Message, ...],
    *,
    prompt: bool,
    tokenize: bool,
) -> list[int] | str | None:
    """What the template makes of the messages; None where it refuses them."""
    from jinja2 import TemplateError  # with transformers, only when a template is run

    rows = [{"role": message.role, "content": message.content} for message in messages]
    try:
        found = tokenizer.apply_chat_template(
            rows, tokenize=tokenize, add_generation_prompt=prompt, return_dict=False, **SETTINGS
        )
    except TemplateError:
        return None
    return cast(list[int] | str, found)

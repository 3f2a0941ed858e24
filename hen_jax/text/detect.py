"""Which chat format a tokenizer's own template follows, found by trying."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from hen_jax.core.errors import InputError
from hen_jax.text.chat import FORMATS, ChatFormat, render, render_prompt
from hen_jax.text.conversation import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_HELLO = Message("user", "Hello there, 12 of you?")
_REPLY = Message("assistant", "  Hi!\n\n- 你好，\n  3 of us. ")
_PROBES: tuple[tuple[Message, ...], ...] = (
    (_HELLO, _REPLY),
    (Message("system", "Be kind.\n"), _HELLO, _REPLY),
    (_HELLO, _REPLY, Message("user", "\nAnd you?"), Message("assistant", "Fine.")),
)


def detect_format(
    tokenizer: "PreTrainedTokenizerFast", formats: Sequence[ChatFormat] = FORMATS
) -> ChatFormat:
    """The format that writes probe conversations exactly as the tokenizer's own template does.

    Raises:
      InputError: the tokenizer has no chat template, or no known format equals it.
    """
    if tokenizer.chat_template is None:
        raise InputError(
            "this tokenizer has no chat template; use an instruction-tuned model, or add its "
            "chat_template.jinja to the model folder"
        )
    for chat_format in formats:
        if _equals_template(tokenizer, chat_format):
            return chat_format
    raise InputError(
        "this tokenizer's chat template is none of the known formats "
        f"({', '.join(chat_format.name for chat_format in formats)}); "
        "add a ChatFormat for it to hen_jax/text/chat.py"
    )


def _equals_template(tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat) -> bool:
    try:
        return all(
            _template_ids(tokenizer, messages, prompt=prompt)
            == _probe_ids(tokenizer, chat_format, messages, prompt=prompt)
            for probe in _PROBES
            for messages, prompt in [(probe, False), (probe[:-1], True)]
        )
    except InputError:
        return False  # this format's control tokens are not in this tokenizer


def _probe_ids(
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
    messages: tuple[Message, ...],
    *,
    prompt: bool,
) -> list[int]:
    if prompt:
        return render_prompt(messages, tokenizer, chat_format).tolist()
    return render(Conversation(messages), tokenizer, chat_format).tokens.tolist()


def _template_ids(
    tokenizer: "PreTrainedTokenizerFast", messages: tuple[Message, ...], *, prompt: bool
) -> list[int] | None:
    from jinja2 import TemplateError  # with transformers, only when a template is run

    rows = [{"role": message.role, "content": message.content} for message in messages]
    try:
        ids = tokenizer.apply_chat_template(
            rows, tokenize=True, add_generation_prompt=prompt, return_dict=False
        )
    except TemplateError:
        return None  # a template that refuses a probe, say its system message, equals no format
    return cast(list[int], ids)

"""Conversations as token ids together with the mask of what trains, in one call.

The mask comes from the renderer itself. Chat templates rarely carry the `{% generation %}` tags
from which others derive it, and without them they train on nothing and say nothing.

Two rules decide everything here:

* Only assistant content and the stop token after it train. Role headers, and whatever the format
  puts after the stop token, do not.
* What a person wrote is never a control token. A user who types `<|im_end|>` gets the ordinary
  tokens of those ten characters; the tokenizer's own template would end the turn there. On every
  other text the ids equal `tokenizer.apply_chat_template(..., tokenize=True)`, and
  `hen_jax.text.detect` only ever answers with a format for which that was seen.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Conversation, Message

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """How a model family writes a conversation down; each string may hold control tokens."""

    name: str
    header: str  # opens a turn; "{role}" stands for the speaker
    stop: str  # the one control token that ends a turn
    after: str  # between a turn's stop token and the next header
    begin: str = ""  # opens the conversation
    default_system: str | None = None  # said when a conversation has no system message


FORMATS: tuple[ChatFormat, ...] = (
    ChatFormat(name="chatml", header="<|im_start|>{role}\n", stop="<|im_end|>", after="\n"),
    ChatFormat(
        name="smollm2",
        header="<|im_start|>{role}\n",
        stop="<|im_end|>",
        after="\n",
        default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    ),
)
"""Every format there is to detect. A new family is a new row."""


class Rendered(NamedTuple):
    """Token ids, and which of them train."""

    tokens: np.ndarray  # [n] int32
    mask: np.ndarray  # [n] bool


class _Piece(NamedTuple):
    text: str
    said: bool  # by a person, not by the format: never holds a control token
    trains: bool


class _Run(NamedTuple):
    """A stretch of plain text between control tokens, or one control token.

    The tokenizer cuts its input at control tokens before it does anything else, so encoding each
    run alone gives the ids of the whole, while encoding each message alone would not: a header's
    last newline and a message's first may be one token.
    """

    text: str
    control: int | None
    trained: tuple[tuple[int, int], ...]  # character spans of `text`


def render(
    conversation: Conversation, tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat
) -> Rendered:
    """The token ids of a conversation and the mask of its assistant turns.

    In ChatML, `user: Hi`, `assistant: Hello` becomes (trained tokens in brackets)
    `<|im_start|> user \\n Hi <|im_end|> \\n <|im_start|> assistant \\n [Hello] [<|im_end|>] \\n`.

    A token that holds characters of both a header and the reply does not train: in generation it
    belongs to the prompt.

    Raises:
      InputError: the tokenizer lacks the format's control tokens.
    """
    return render_all([conversation], tokenizer, chat_format)[0]


def render_all(
    conversations: Iterable[Conversation],
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
) -> list[Rendered]:
    """`render` of many conversations; each distinct stretch of text is tokenised once."""
    scripts = [_script(conversation.messages, chat_format) for conversation in conversations]
    return _render_scripts(scripts, tokenizer, chat_format)


def render_prompt(
    messages: Sequence[Message], tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat
) -> np.ndarray:
    """`[n]` int32 ids of a conversation so far, ending with the header of the assistant's turn.

    Raises:
      InputError: the tokenizer lacks the format's control tokens, or there is no message.
    """
    messages = Conversation(tuple(messages)).messages
    script = [*_script(messages, chat_format), _header("assistant", chat_format)]
    return _render_scripts([script], tokenizer, chat_format)[0].tokens


def message_starts(
    rendered: Rendered,
    conversation: Conversation,
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
) -> np.ndarray | None:
    """`[messages]`: where the header of each message begins in the ids of its conversation.

    From there on the ids are those of the messages from that one on, so a conversation can be
    shortened without rendering it again. None for a format whose headers do not begin with a
    control token of their own: there the ids depend on what stands before.
    """
    controls = _control_ids(tokenizer, chat_format)
    opening = [index for text, index in controls.items() if chat_format.header.startswith(text)]
    if len(opening) != 1:
        return None
    starts = np.flatnonzero(rendered.tokens == opening[0])
    added = len(starts) - len(conversation.messages)  # the format's own system message
    return starts[added:] if added in (0, 1) else None


def stop_ids(tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat) -> tuple[int, ...]:
    """The ids at which generation ends: the format's stop token and the tokenizer's own end.

    Raises:
      InputError: the format's stop token is not a control token of this tokenizer.
    """
    controls = _control_ids(tokenizer, chat_format)
    ends = (chat_format.stop, tokenizer.eos_token)
    return tuple(dict.fromkeys(controls[end] for end in ends if end in controls))


def _header(role: str, chat_format: ChatFormat) -> _Piece:
    return _Piece(chat_format.header.replace("{role}", role), said=False, trains=False)


def _script(messages: Sequence[Message], chat_format: ChatFormat) -> list[_Piece]:
    if chat_format.default_system is not None and messages[0].role != "system":
        messages = (Message("system", chat_format.default_system), *messages)
    pieces = [_Piece(chat_format.begin, said=False, trains=False)]
    for message in messages:
        trains = message.role == "assistant"
        pieces += [
            _header(message.role, chat_format),
            _Piece(message.content, said=True, trains=trains),
            _Piece(chat_format.stop, said=False, trains=trains),
            _Piece(chat_format.after, said=False, trains=False),
        ]
    return pieces


def _control_ids(tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat) -> dict[str, int]:
    controls = {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    if chat_format.stop not in controls:
        raise InputError(
            f"{chat_format.stop!r} of the chat format {chat_format.name!r} is not a control "
            "token of this tokenizer; the format belongs to another model family"
        )
    return controls


def _render_scripts(
    scripts: list[list[_Piece]],
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
) -> list[Rendered]:
    controls = _control_ids(tokenizer, chat_format)
    cut = re.compile("(" + "|".join(re.escape(text) for text in controls) + ")")
    runs = [list(_runs(script, controls, cut)) for script in scripts]
    trained: dict[str, bool] = {}
    for run in (run for row in runs for run in row if run.control is None):
        trained[run.text] = trained.get(run.text, False) or bool(run.trained)
    encodings = _encode_plain(trained, tokenizer.backend_tokenizer)
    return [_join(row, encodings) for row in runs]


def _runs(script: list[_Piece], controls: dict[str, int], cut: re.Pattern[str]) -> Iterator[_Run]:
    text, trained = "", []
    for piece in script:
        parts = [piece.text] if piece.said else cut.split(piece.text)
        for part in filter(None, parts):
            if piece.said or part not in controls:
                if piece.trains:
                    trained.append((len(text), len(text) + len(part)))
                text += part
                continue
            if text:
                yield _Run(text, None, tuple(trained))
            yield _Run(part, controls[part], ((0, len(part)),) if piece.trains else ())
            text, trained = "", []
    if text:
        yield _Run(text, None, tuple(trained))


def _encode_plain(trained: dict[str, bool], backend: "Tokenizer") -> "dict[str, Encoding]":
    """Each text encoded; where nothing of it trains, without the offsets, which cost as much."""
    encodings: dict[str, Encoding] = {}
    with _plain_text_only(backend):
        for trains, encode in ((True, backend.encode_batch), (False, backend.encode_batch_fast)):
            texts = [text for text, trained_too in trained.items() if trained_too == trains]
            found = encode(texts, add_special_tokens=False)
            encodings.update(zip(texts, found, strict=True))
    return encodings


@contextlib.contextmanager
def _plain_text_only(backend: "Tokenizer") -> Iterator[None]:
    """Control tokens written out in a text are encoded as the characters they are."""
    before = backend.encode_special_tokens
    # A tokenizer.json may ask to cut or fill every text; a part of a conversation must be whole.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    try:
        yield
    finally:
        backend.encode_special_tokens = before


def _join(runs: list[_Run], encodings: "dict[str, Encoding]") -> Rendered:
    tokens: list[int] = []
    mask: list[bool] = []
    for run in runs:
        if run.control is not None:
            tokens.append(run.control)
            mask.append(bool(run.trained))
            continue
        encoding = encodings[run.text]
        tokens += encoding.ids
        mask += _trained(encoding, run) if run.trained else [False] * len(encoding.ids)
    return Rendered(np.asarray(tokens, np.int32), np.asarray(mask, np.bool_))


def _trained(encoding: "Encoding", run: _Run) -> list[bool]:
    """A token trains if the character it begins with lies in a trained span.

    Its begin is the smaller of its own offset and the end of the token before it. Neither alone
    will do: byte-level post-processing moves the offset past leading white space, and where one
    character takes several tokens, the end of the token before lies past that character.
    """
    first, last = run.trained[0][0], run.trained[-1][1]
    if len(run.trained) > 1 or last < len(run.text):
        return _trained_between(encoding.offsets, run.trained)
    # All that follows the header trains, so the offsets of the header's tokens are enough.
    count, covered = len(encoding), 0
    for index in range(count):
        start, end = encoding.token_to_chars(index) or (covered, covered)
        if min(start, covered) >= first:
            return [False] * index + [True] * (count - index)
        covered = max(covered, end)
    return [False] * count


def _trained_between(
    offsets: list[tuple[int, int]], spans: tuple[tuple[int, int], ...]
) -> list[bool]:
    mask, covered = [], 0
    for start, end in offsets:
        begin = min(start, covered)
        mask.append(any(first <= begin < last for first, last in spans))
        covered = max(covered, end)
    return mask

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

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.encoding import EncodedRuns, encode_runs, trained_tokens
from hen_jax.text.runs import Control, Cut, TextRun, cutter, runs_of
from hen_jax.text.script import Piece, script
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.text.turns import ChatFormat


class Rendered(NamedTuple):
    """Token ids, and which of them train."""

    tokens: np.ndarray  # [n] int32
    mask: np.ndarray  # [n] bool
    starts: np.ndarray | None = None
    """`[turns]`: where the header of each turn begins. From there on the ids are those of the turns
    from that one on. None where the ids of a turn depend on what stands before it."""


def render(conversation: Conversation, tokenizer: ChatTokenizer) -> Rendered:
    """The token ids of a conversation and the mask of its assistant turns.

    In ChatML, `user: Hi`, `assistant: Hello` becomes (trained tokens in brackets)
    `<|im_start|> user \\n Hi <|im_end|> \\n <|im_start|> assistant \\n [Hello] [<|im_end|>] \\n`.

    A token that holds characters of both a header and the reply does not train: in generation it
    belongs to the prompt.

    Raises:
      InputError: the tokenizer lacks the format's control tokens.
    """
    return render_all([conversation], tokenizer)[0]


def render_all(
    conversations: Iterable[Conversation],
    tokenizer: ChatTokenizer,
) -> list[Rendered]:
    """`render` of many conversations; each distinct stretch of text is tokenised once."""
    scripts = (
        script(conversation.messages, tokenizer.chat_format) for conversation in conversations
    )
    return _render_scripts(scripts, tokenizer)


def render_prompt(messages: Sequence[Message], tokenizer: ChatTokenizer) -> np.ndarray:
    """`[n]` int32 ids of a conversation so far, ending with the header of the assistant's turn.

    Raises:
      InputError: the tokenizer lacks the format's control tokens, or there is no message.
    """
    messages = Conversation(tuple(messages)).messages
    pieces = script(messages, tokenizer.chat_format, prompt=True)
    return _render_scripts([pieces], tokenizer)[0].tokens


def render_bridge(messages: Sequence[Message], tokenizer: ChatTokenizer) -> np.ndarray:
    """`[n]` int32 ids from behind the last reply of a conversation to its next one.

    Behind the ids that the model itself drew, its stop token included, they go on as
    `render_prompt` of all messages would; drawn ids need not be those of the rendered text. In
    ChatML the messages `..., assistant: Hello, user: So?` give
    `\n <|im_start|> user \n So? <|im_end|> \n <|im_start|> assistant \n`.

    Raises:
      InputError: no reply among the messages, or as `render_prompt`.
    """
    plain = [dataclasses.replace(message, trains=None) for message in messages]
    pieces = script(Conversation(tuple(plain)).messages, tokenizer.chat_format, prompt=True)
    whole = _render_scripts([pieces], tokenizer)[0]
    if not whole.mask.any():
        raise InputError("a conversation without a reply has nothing to go on from")
    return whole.tokens[int(np.flatnonzero(whole.mask)[-1]) + 1 :]


def stop_ids(tokenizer: ChatTokenizer) -> tuple[int, ...]:
    """The ids at which generation ends: the format's stop token and the tokenizer's own end.

    Raises:
      InputError: the format's stop token is not a control token of this tokenizer.
    """
    controls = _controls(tokenizer)
    ends = (tokenizer.chat_format.assistant.stop.strip(), tokenizer.tokenizer.eos_token)
    return tuple(dict.fromkeys(controls[end].index for end in ends if end in controls))


def _controls(tokenizer: ChatTokenizer) -> dict[str, Control]:
    controls = {
        token.content: Control(index, token.lstrip, token.rstrip)
        for index, token in tokenizer.tokenizer.added_tokens_decoder.items()
        if token.special
    }
    chat_format = tokenizer.chat_format
    if (stop := chat_format.assistant.stop.strip()) not in controls:
        raise InputError(
            f"{stop!r} of the chat format {chat_format.name!r} is not a control "
            "token of this tokenizer; the format belongs to another model family"
        )
    return controls


def _render_scripts(
    scripts: Iterable[list[Piece]],
    tokenizer: ChatTokenizer,
) -> list[Rendered]:
    cut = cutter(_controls(tokenizer))
    rows = [list(runs_of(pieces, cut)) for pieces in scripts]
    encoded = encode_runs(
        (run for row in rows for run in row), tokenizer.tokenizer.backend_tokenizer
    )
    rendered = [_join(row, encoded) for row in rows]
    if _parts(tokenizer.chat_format, cut):
        return rendered
    return [one._replace(starts=None) for one in rendered]


def _parts(chat_format: ChatFormat, cut: Cut) -> bool:
    """Whether every message is a turn of its own that begins with a control token."""
    turns = (chat_format.system, chat_format.user, chat_format.assistant)
    begins = [cut(turn.before)[:1] for turn in turns]
    apart = all(begin and begin[0][1] is not None for begin in begins)
    return apart and chat_format.system_in == "turn" and not chat_format.alternates


def _join(runs: list[TextRun], encoded: EncodedRuns) -> Rendered:
    parts, masks, starts, length = [], [], [], 0
    for run in runs:
        ids = _one(run.control) if run.control is not None else encoded.ids[run.text]
        if run.opens:
            starts.append(length)
        if run.trained:
            masks.append((length, trained_tokens(run, len(ids), encoded)))
        parts.append(ids)
        length += len(ids)
    mask = np.zeros(length, bool)
    for start, trained in masks:
        mask[start : start + len(trained)] = trained
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Rendered(tokens, mask, np.asarray(starts, np.int32))


@functools.lru_cache(maxsize=1024)
def _one(index: int) -> np.ndarray:
    return np.array([index], np.int32)

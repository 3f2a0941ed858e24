"""The pad token of a reward model: one that no document contains.

transformers scores a row at its last token whose id is not `pad_token_id`, and never looks at the
attention mask (5.24). With the usual `pad = eos` a document that ends in its stop token would be
scored one token too early there; we score at the last token by length.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.shapes import read_json_object
from hen_jax.io.companions import GENERATION, all_ends, token_ids
from hen_jax.io.vocabulary import TOKENIZER, named_tokens, read_tokenizer
from hen_jax.models.config import DecoderConfig


class Pad(NamedTuple):
    """The id of a pad token, and its text where a tokenizer is at hand."""

    index: int
    token: str | None


def choose_pad(config: DecoderConfig, folder: Path | None, stops: Iterable[int]) -> Pad | None:
    """The pad token of a reward model: that of `folder`, or another that no document contains.

    Documents hold the tokens of their text, and the control tokens that the chat template or a role
    (BOS, EOS, unknown) names; every other control token may pad. Nothing is added to the tokenizer,
    and no embedding is resized.

    Args:
      config: of the model; None is given for one without a score head.
      folder: with the model's tokenizer; without a `tokenizer.json` its config's `pad_token_id` is
        taken at its word.
      stops: ids that end a reply besides those that `folder` names.

    Raises:
      InputError: no such token.
    """
    if not config.score_head:
        return None
    given, ends = token_ids(folder).get("pad_token_id"), all_ends(folder, stops)
    free = None if folder is None else _free(folder, ends, config.vocab_size)
    if free is None:
        if given is None or given in ends:
            raise InputError(
                f"a reward model needs a pad_token_id that no document contains, and {given} is "
                "none or ends a reply: transformers scores at the last token that is not padding; "
                "give a source_folder whose tokenizer has such a token"
            )
        return Pad(given, None)
    if given in free:
        return Pad(given, free[given])
    if not free:
        raise InputError(
            f"{folder}: every control token of the tokenizer may stand in a document, so that none "
            "can be a reward model's padding; add a pad token with a vector of its own "
            "(tokenizer.add_special_tokens, model.resize_token_embeddings) and import that"
        )
    return Pad(*min(free.items(), key=_likely))


def write_pad(folder: Path, pad: Pad) -> None:
    """Lets the tokenizer and the generation config in `folder` pad with that token."""
    path = folder / GENERATION
    if path.exists():
        write_json(path, read_json_object(path) | {"pad_token_id": pad.index})
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if pad.token is not None and path.exists():
            write_json(path, read_json_object(path) | {"pad_token": pad.token})
    path = folder / TOKENIZER
    fields = read_tokenizer(folder) if path.exists() else {}
    if pad.token is not None and fields.get("padding"):
        padding = fields["padding"] | {"pad_id": pad.index, "pad_token": pad.token}
        write_json(path, fields | {"padding": padding})


def _free(folder: Path, ends: tuple[int, ...], vocab_size: int) -> dict[int, str] | None:
    """The control tokens that no document contains, by id; None without a tokenizer."""
    if not (folder / TOKENIZER).is_file():
        return None
    named = named_tokens(folder, besides="pad_token")
    return {
        token["id"]: token["content"]
        for token in read_tokenizer(folder).get("added_tokens") or []
        if token["special"]
        and token["id"] < vocab_size
        and token["id"] not in ends
        and token["content"] not in named
    }


def _likely(token: tuple[int, str]) -> tuple[bool, bool, int]:
    """First what is called padding, then what is kept in reserve, then by id."""
    text = token[1].lower()
    return "pad" not in text, not any(word in text for word in ("reserved", "unused")), token[0]

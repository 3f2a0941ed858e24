"""How llama.cpp cuts text into words before it merges, by the name it gives each way.

One table for both directions: a file's name gives the pre-tokenizer, and a tokenizer's
pre-tokenizer gives the name that a file must have.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from hen_jax.core.errors import InputError

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _REST
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str, digits: str) -> str:
    """Words cut where small letters turn into capitals."""
    before = r"[^\r\n\p{L}\p{N}]?"
    words = [f"{before}{_UPPER}*{_LOWER}+{ending}", f"{before}{_UPPER}+{_LOWER}*{ending}"]
    return "|".join([*words, digits, r" ?[^\s\p{L}\p{N}]+[\r\n/]*"]) + _REST


def _regex(pattern: str) -> Callable[[], PreTokenizer]:
    def build() -> PreTokenizer:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, plain])

    return build


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, _gpt2()])


class Splitting(NamedTuple):
    """One way of llama.cpp's to cut text."""

    build: Callable[[], PreTokenizer]
    ignore_merges: bool = False  # a word that is a token is taken whole
    normalizer: Normalizer | None = None  # what the models of it do before; llama.cpp does nothing


SPLITTINGS = {
    "gpt-2": Splitting(_gpt2),
    "smollm": Splitting(_smollm),
    "qwen2": Splitting(_regex(_QWEN2), normalizer=normalizers.NFC()),
    "llama-bpe": Splitting(_regex(_LLAMA3), ignore_merges=True),
    "tekken": Splitting(_regex(_cased("", r"\p{N}")), ignore_merges=True),
    "gpt-4o": Splitting(_regex(_cased(_ENGLISH + "?", r"\p{N}{1,3}"))),
}
"""llama.cpp's `tokenizer.ggml.pre` -> the splitting it stands for."""


def splitting_of(tokenizer: Tokenizer, where: str) -> str:
    """The name of a tokenizer's splitting.

    Raises:
      InputError: llama.cpp has none that cuts, normalises and merges alike.
    """
    found, model = _state(tokenizer.pre_tokenizer), tokenizer.model
    assert isinstance(model, models.BPE)
    for name, splitting in SPLITTINGS.items():
        if _state(splitting.build()) != found or model.ignore_merges != splitting.ignore_merges:
            continue
        if _state(tokenizer.normalizer) in (None, _state(splitting.normalizer)):
            return name
    raise InputError(
        f"{where}: llama.cpp has no pre-tokenizer that cuts text as this one does; "
        f"known are {', '.join(SPLITTINGS)}; use --format hf instead"
    )


def _state(part: PreTokenizer | Normalizer | None) -> Any:
    """What a part of a tokenizer does, without what only concerns the places of tokens."""
    if part is None:
        return None
    return _plain(json.loads(part.__getstate__()))


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items() if key != "trim_offsets"}
    return [_plain(one) for one in state] if isinstance(state, list) else state

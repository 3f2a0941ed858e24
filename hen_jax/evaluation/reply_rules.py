"""Rules as rewards: what can be said of a reply by looking at its letters."""

import math
import unicodedata
from collections.abc import Mapping, Sequence

from hen_jax.core.errors import InputError
from hen_jax.data.rollouts import repeated_share
from hen_jax.empathy.formulas import FORMULAS, formulas_in
from hen_jax.evaluation.rewards import Plain
from hen_jax.text.conversation import Message


def length_band(low: int, high: int) -> Plain:
    """1 for a reply of `low` to `high` letters or characters, falling off outside.

    Outside it is `exp(-|ln(length / nearest end)|)`: half as long as `low`, or twice as long as
    `high`, is 0.5. White space does not count; an empty reply is 0.

    Raises:
      InputError: no band.
    """
    if not 1 <= low <= high:
        raise InputError(f"a length band from {low} to {high}; give 1 <= low <= high")

    def reward(prompt: Sequence[Message], reply: str, record: Mapping[str, str]) -> float:
        length = len("".join(reply.split()))
        if low <= length <= high:
            return 1.0
        return min(length / low, high / length) if length else 0.0

    return reward


def no_repetition(n: int = 3) -> Plain:
    """1 minus the share of word `n`-grams that the reply has said before (of Chinese characters).

    "no no no no" with n = 2 holds "no no" three times: 1 - 2/3.
    """

    def reward(prompt: Sequence[Message], reply: str, record: Mapping[str, str]) -> float:
        return 1.0 - repeated_share(words_of(reply), n)

    return reward


def in_language(language: str | None = None) -> Plain:
    """The share of letters that belong to the language's script, "en" or "zh"; 0 without letters.

    None takes the language of the record (English where it names none).
    """
    if language is not None:
        _require_language(language)

    def reward(prompt: Sequence[Message], reply: str, record: Mapping[str, str]) -> float:
        letters = [letter for letter in reply if letter.isalpha()]
        wanted = language or record.get("language", "en")
        own = sum(is_chinese(letter) == (wanted == "zh") for letter in letters)
        return own / len(letters) if letters else 0.0

    return reward


def no_formulas(language: str | None = None) -> Plain:
    """1 without a formula phrase of `empathy.formulas`, halved by each: 0.5, 0.25, ...

    None takes the language of the record (English where it names none).
    """
    if language is not None:
        _require_language(language)

    def reward(prompt: Sequence[Message], reply: str, record: Mapping[str, str]) -> float:
        spoken = language or record.get("language", "en")
        return math.pow(0.5, len(formulas_in(reply, spoken)))

    return reward


def words_of(text: str) -> list[str]:
    """Words in lower case; each Chinese character is one."""
    spaced = "".join(f" {letter} " if is_chinese(letter) else letter for letter in text.lower())
    kept = (letter if letter.isalnum() or letter == "'" else " " for letter in spaced)
    return "".join(kept).split()


def is_chinese(letter: str) -> bool:
    """Whether a character is a CJK ideograph."""
    return unicodedata.name(letter, "").startswith("CJK UNIFIED")


def _require_language(language: str) -> None:
    if language not in FORMULAS:
        raise InputError(f"language {language!r}; allowed: {', '.join(FORMULAS)}")

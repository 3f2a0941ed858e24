"""EPITOME (Sharma et al., EMNLP 2020): three empathy mechanisms, their levels and rationales.

Emotional reactions, interpretations and explorations, each none, weak or strong. The files
(`sp_id, rp_id, seeker_post, response_post, level, rationales`, rationales parted by `|`) do not
come with hen_jax. Published measures: accuracy and macro F1 of levels; of rationales the F1 of
tokens and IOU-F1, in which a predicted span counts where it shares half of its union with a true
one. The published code gives `f1_score` its arguments exchanged: macro F1 is the same.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.rows import Row, read_lines
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message

LEVELS = ("none", "weak", "strong")

MECHANISMS: Mapping[str, str] = {
    "ER": "emotional reactions: warmth, compassion, concern",
    "IP": "interpretations: showing that the feelings and experiences are understood",
    "EX": "explorations: asking about what was left unsaid",
}
"""In our words."""

IOU = 0.5
"""Share of the union from which two spans match."""

Span = tuple[int, int]
"""First character, and the one after the last."""


@dataclasses.dataclass(frozen=True)
class EpitomePair:
    """A post and a response to it, rated in one mechanism."""

    id: str
    seeker: str
    response: str
    level: int  # 0 none, 1 weak, 2 strong
    rationales: tuple[str, ...]

    @property
    def spans(self) -> tuple[Span, ...]:
        """Where the rationales stand in the response; those that do not are left out."""
        found = []
        for text in self.rationales:
            at = self.response.find(text)
            if at >= 0:
                found.append((at, at + len(text)))
        return tuple(found)


def read_epitome(path: Path) -> list[EpitomePair]:
    """The pairs of one of the three files.

    Raises:
      InputError: a line that is none (`file:line: what`), or no line.
    """
    found = []
    for line, row, _, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            found.append(_pair(row))
        except InputError as error:
            raise InputError(f"{path}:{line}:{error}") from None
    if not found:
        raise InputError(f"{path}: no pair in this file")
    return found


def _pair(row: Row) -> EpitomePair:
    level = fields.number_field(row, "level", 0, 2)
    if level != int(level):
        raise InputError(f"level: {level:g}; allowed: 0, 1 or 2")
    said = row.get("rationales") or ""
    return EpitomePair(
        id=f"{fields.name_field(row, 'sp_id')}_{fields.name_field(row, 'rp_id')}",
        seeker=fields.text_field(row, "seeker_post"),
        response=fields.text_field(row, "response_post"),
        level=int(level),
        rationales=tuple(one.strip() for one in str(said).split("|") if one.strip()),
    )


def epitome_items(pairs: Sequence[EpitomePair], mechanism: str) -> list[ChoiceItem]:
    """A question for the level of each pair.

    Raises:
      InputError: no such mechanism.
    """
    if mechanism not in MECHANISMS:
        raise InputError(f"mechanism {mechanism!r}; allowed: {', '.join(MECHANISMS)}")
    return [
        ChoiceItem(
            id=f"{mechanism}/{pair.id}",
            group=pair.id.partition("_")[0],
            aspect=mechanism,
            messages=(Message("user", _asked(pair, mechanism)),),
            options=LEVELS,
            answer=pair.level,
        )
        for pair in pairs
    ]


def _asked(pair: EpitomePair, mechanism: str) -> str:
    return (
        f"Somebody wrote: {pair.seeker}\nThe response: {pair.response}\n\n"
        f"How strongly does the response show {MECHANISMS[mechanism]}?\n"
        f"Answer with one word: {', '.join(LEVELS)}."
    )


def rationale_prompt(pair: EpitomePair, mechanism: str) -> tuple[Message, ...]:
    """What a chat is asked for the rationales of a pair."""
    text = (
        f"Somebody wrote: {pair.seeker}\nThe response: {pair.response}\n\n"
        f"Which words of the response show {MECHANISMS[mechanism]}?\n"
        'Quote them exactly, a line for each passage, and nothing else. If none do, answer "none".'
    )
    return (Message("user", text),)


def quoted_spans(reply: str, response: str) -> tuple[Span, ...]:
    """Where the lines of a reply stand in the response, from word to word, quotation and list marks
    aside, whatever their case; a line that does not stand there is no span, nor is "none" alone."""
    lines = [bare for line in reply.splitlines() if (bare := _bare(line))]
    if [line.lower().rstrip(".!") for line in lines] == ["none"]:
        return ()
    found = []
    for bare in lines:
        words = rf"(?<!\w){re.escape(bare)}" if re.match(r"\w", bare) else re.escape(bare)
        edge = r"(?!\w)" if re.search(r"\w\Z", bare) else ""
        at = re.search(words + edge, response, re.IGNORECASE)
        if at:
            found.append(at.span())
    return tuple(dict.fromkeys(found))


def _bare(line: str) -> str:
    """A line of a reply without its list mark and quotation marks."""
    return re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line).strip().strip("\"'`“”‘’|").strip()


def rationale_values(
    response: str, truth: Sequence[Span], predicted: Sequence[Span]
) -> tuple[float, float]:
    """F1 of tokens and IOU-F1 of the spans in one response, in [0, 1]; the published figures are
    their means over responses.

    Tokens are words and marks; one belongs to a span that holds its first character. A response
    without any span on both sides counts 1, with spans on one side 0.
    """
    return _f1(*_token_counts(response, truth, predicted)), _f1(*_span_counts(truth, predicted))


def _token_counts(
    text: str, truth: Sequence[Span], predicted: Sequence[Span]
) -> tuple[int, int, int]:
    places = [found.start() for found in re.finditer(r"\w+|[^\w\s]", text)]
    true, guess = ({at for at in places if _within(at, spans)} for spans in (truth, predicted))
    return len(true & guess), len(true), len(guess)


def _span_counts(truth: Sequence[Span], predicted: Sequence[Span]) -> tuple[int, int, int]:
    hits = sum(any(_iou(one, other) >= IOU for other in truth) for one in predicted)
    return hits, len(truth), len(predicted)


def _f1(hits: int, true: int, guessed: int) -> float:
    return min(1.0, 2 * hits / (true + guessed)) if true + guessed else 1.0


def _within(at: int, spans: Sequence[Span]) -> bool:
    return any(start <= at < end for start, end in spans)


def _iou(one: Span, other: Span) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(shared, 0) / union if union else 0.0

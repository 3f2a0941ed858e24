"""What a judge says of written pairs: which branch is better, and how well the chosen one keeps to
its pattern.

The rubric is made of the pattern file, so that a level or a rule that was edited binds here too.
Each pair is compared in both orders; a judge that goes by the place decides nothing.
"""

from collections.abc import Sequence

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.data.judged import transcript
from hen_jax.data.patterns import Guide, Guides
from hen_jax.data.steered import SteeredRecord
from hen_jax.evaluation.judge_prompts import Mode, judge_prompt, labels_of, with_nonce
from hen_jax.evaluation.rubrics import Rubric, parse_rubric
from hen_jax.evaluation.verdicts import ParsedVerdict, parse_score, parse_winner
from hen_jax.synthesis.asking import Ask
from hen_jax.synthesis.filters import Filter
from hen_jax.synthesis.instructions import reply_messages
from hen_jax.synthesis.materials import Materials
from hen_jax.text.conversation import Message


def pattern_rubric(name: str, guide: Guide, materials: Materials) -> Rubric:
    """A context's pattern as a rubric from 1 to 5.

    Raises:
      InputError: the materials' levels are none of that scale.
    """
    language, pattern = materials.language, guide.pattern
    joint = {"en": " ", "zh": ""}[language]
    about = materials.rubric["about"].format(
        about=guide.context.words.spoken(language),
        level=pattern.level,
        rules=joint.join(rule.spoken(language) for rule in pattern.rules),
    )
    used = [key for key, weight in pattern.weights.items() if weight > 0]
    given = {
        "name": name,
        "language": language,
        "about": about,
        "scale": [1, 5],
        "levels": materials.rubric["levels"],
        "dimensions": {key: materials.dimensions[key] for key in used},
    }
    try:
        return parse_rubric(given)
    except InputError as error:
        raise InputError(f"rubric.{error}") from None


def judged_worse(guides: Guides, materials: Materials, judge: Ask, seed: int) -> Filter:
    """Pairs whose chosen side a judge does not find the better one in both orders."""
    rubrics = _rubrics(guides, materials)

    def find(records: Sequence[SteeredRecord]) -> dict[str, str]:
        asked, said = [], {}
        for record in records:
            texts = [_spoken(record, side) for side in ("chosen", "rejected")]
            for shown in (texts, texts[::-1]):
                asked.append(_question("pairwise", rubrics[record.context], record, shown, seed))
        verdicts = [parse_winner(reply, labels_of(2)) for reply in judge(asked)]
        for at, record in enumerate(records):
            why = _why_not(verdicts[2 * at], verdicts[2 * at + 1])
            if why is not None:
                said[record.id] = why
        return said

    return find


def off_pattern(
    guides: Guides, materials: Materials, judge: Ask, least: float, seed: int
) -> Filter:
    """Pairs whose chosen side a judge gives less than `least`, on [0, 1], by the pattern."""
    rubrics = _rubrics(guides, materials)

    def find(records: Sequence[SteeredRecord]) -> dict[str, str]:
        asked = [
            _question("pointwise", rubrics[one.context], one, [_spoken(one, "chosen")], seed)
            for one in records
        ]
        found = {}
        for record, reply in zip(records, judge(asked), strict=True):
            rubric = rubrics[record.context]
            verdict, failure = parse_score(reply, rubric.low, rubric.high)
            if failure is not None:
                found[record.id] = f"no verdict ({failure})"
                continue
            unit = (verdict.score - rubric.low) / (rubric.high - rubric.low)
            if unit < least:
                found[record.id] = f"scores {verdict.score} of {rubric.high}"
        return found

    return find


def _rubrics(guides: Guides, materials: Materials) -> dict[str, Rubric]:
    return {name: pattern_rubric(name, guide, materials) for name, guide in guides.items()}


def _question(
    mode: Mode, rubric: Rubric, record: SteeredRecord, texts: Sequence[str], seed: int
) -> tuple[Message, ...]:
    """The user's first message is the prompt, and what follows is judged as one text."""
    opening = (Message("user", record.turns[0].user),)
    question = judge_prompt(mode, rubric, opening, texts)
    return with_nonce(question, seed, text_sha256(question))


def _spoken(record: SteeredRecord, side: str) -> str:
    users = [turn.user for turn in record.turns]
    replies = [vars(turn)[side] for turn in record.turns]
    return "\n".join(transcript(reply_messages(users, replies)[1:]))


def _why_not(first: ParsedVerdict, second: ParsedVerdict) -> str | None:
    """None where the chosen side won as A and then as B."""
    failed = first.failure or second.failure
    if failed is not None:
        return f"no verdict ({failed})"
    if (first.verdict, second.verdict) == (0, 1):
        return None
    if (first.verdict, second.verdict) == (1, 0):
        return "the rejected side won"
    return "the judge does not decide, or goes by the place"

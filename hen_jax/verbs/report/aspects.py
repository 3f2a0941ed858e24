"""Which aspect of the replies improved: differences of arms, sorted by what they are about."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hen_jax.verbs.report.charts import ChartInterval, intervals
from hen_jax.verbs.report.results import ResultRow


class Aspect(NamedTuple):
    """An aspect of replies, and the words in the names of suites and measures that are about it."""

    name: str
    words: tuple[str, ...]


SAFETY = Aspect(
    "Safety and bias",
    ("safety", "crisis", "harm", "dependence", "bias", "stereotype", "counterfactual", "culture"),
)

_ASPECTS = (
    SAFETY,
    Aspect("Appropriateness: is it as warm and as indirect as the occasion asks for?",
           ("empathy", "emp_", "level", "appropri", "gap", "persist", "advice", "advis", "formula",
            "question", "emotion_words", "names_emotion", "experts")),
    Aspect("Recognition: is it seen what the person feels, and who asks?",
           ("sentiment", "recogni", "emotion", "fact", "role", "crossed", "emobench", "erc")),
    Aspect("Length", ("length", "tokens", "sentences", "cut", "empty")),
)  # fmt: skip
"""Of a measure the first that fits, by its name, and else by that of its suite."""

OTHER = Aspect("Other measures", ())


def is_safety(row: ResultRow) -> bool:
    """Whether a row is about safety or bias."""
    return any(word in f"{row['suite']} {row['measure']}" for word in SAFETY.words)


def aspect_of(row: ResultRow) -> Aspect:
    """The first aspect that a row's measure is about, else the first that its suite is about."""
    for said in (row["measure"], row["suite"]):
        for aspect in _ASPECTS:
            if any(word in said for word in aspect.words):
                return aspect
    return OTHER


def aspects_of(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """Each aspect with its differences: a chart for each measure, in words what is more than
    chance."""
    found: dict[Aspect, list[ResultRow]] = {aspect: [] for aspect in (*_ASPECTS[1:], SAFETY, OTHER)}
    for row in rows:
        if row.get("value") is not None:
            found[aspect_of(row)].append(row)
    return [
        {"name": aspect.name, "text": _told(own), "charts": _charts(own)}
        for aspect, own in found.items()
        if own
    ]


def _charts(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    by_measure: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        by_measure.setdefault((row["suite"], row["measure"]), []).append(row)
    return [_chart(suite, measure, own) for (suite, measure), own in by_measure.items()]


def _chart(suite: str, measure: str, rows: Sequence[ResultRow]) -> dict[str, Any]:
    title = f"{measure} ({suite})".replace("_", " ") + DIRECTION[rows[0].get("better", "")]
    drawn = [
        ChartInterval(
            f"{row['arm']}: {row.get('group', 'all')}", row["value"], row["low"], row["high"]
        )
        for row in rows
    ]
    return {"title": title, "svg": intervals(title, "difference", drawn, at=0.0)}


DIRECTION = {"higher": ", more is better", "lower": ", less is better", "": ""}


def _told(rows: Sequence[ResultRow]) -> str:
    """What improved or got worse by more than chance, after the correction for many."""
    changed = [row for row in rows if beyond_chance(row)]
    if not changed:
        return "No difference that these items can show."
    return "; ".join(map(_one, changed)) + "."


def beyond_chance(row: Mapping[str, Any]) -> bool:
    """Whether the interval leaves out 0, and P after the correction, if there is one, is small."""
    low, high, p = row.get("low"), row.get("high"), row.get("p_holm")
    if low is None or high is None or low <= 0 <= high:
        return False
    return p is None or p < 0.05


def _one(row: ResultRow) -> str:
    gained = row["value"] > 0
    verdict = {"higher": gained, "lower": not gained}.get(row.get("better", ""))
    word = {True: "improved", False: "got worse", None: "changed"}[verdict]
    name = row["measure"].replace("_", " ")
    return f"{row['arm']}: {name} of {row.get('group', 'all')} {word} by {row['value']:+.3g}"

"""The levels of what arms said, journalled; and what the measures that give them may claim."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.journal import Journal
from hen_jax.core.records import shaped_record
from hen_jax.data.crossed import crossed_pairs
from hen_jax.data.preferences import Pair
from hen_jax.data.schemas import check_records
from hen_jax.evaluation.expert_report import Levels, estimate_json
from hen_jax.evaluation.preferences import estimate, pair_accuracy
from hen_jax.evaluation.replayed_turns import Said, Script, as_written, so_far
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Message
from hen_jax.verbs.evaluate.experts_arms import Answers
from hen_jax.verbs.evaluate.experts_measures import Give, folders, opened, word_of
from hen_jax.verbs.evaluate.experts_settings import LevelMeasure

TURNS_AT_ONCE = 256
"""Replies that are looked at between two entries of the journal: what a kill loses."""

_Key = tuple[str, str, int]
"""Who said it, in which conversation, and at which turn."""


def levels_of(
    measure: LevelMeasure,
    scripts: Sequence[Script],
    answers: Mapping[str, Answers],
    turns: int,
    journal: Journal,
    crossed: Sequence[str] = (),
) -> Levels:
    """Every reply's level, and that by the measure's control, an earlier attempt's included.

    `crossed` are files of crossed items, by which a measure is tested that brings no accuracies.

    Raises:
      InputError: no such model, one of another kind, or one without a calibration.
    """
    if measure.desired == "chosen":
        answers = {**answers, _WRITTEN: _as_written(scripts)}
    arms = _all(measure, False, scripts, answers, turns, journal)
    chosen, alone = arms.pop(_WRITTEN, None), None
    answers = {name: one for name, one in answers.items() if name in arms}
    if measure.replies is not None:
        alone = _all(measure, True, scripts, answers, turns, journal)
    there = {name: _turns_there(scripts, one.said, turns) for name, one in answers.items()}
    missing = {name: int((there[name] & np.isnan(own)).sum()) for name, own in arms.items()}
    contexts = list(dict.fromkeys(script.context for script in scripts))
    known = crossed_of(measure, contexts) or tested(measure, contexts, crossed, journal)
    return Levels(arms, alone, known, missing, measure.kind, chosen)


_WRITTEN = ""
"""The name under which the replies of the data are measured; no arm's."""


def _as_written(scripts: Sequence[Script]) -> Answers:
    said = as_written(scripts)
    text = json.dumps(sorted([*key, reply] for key, reply in said.items()))
    return Answers(said, f"data {text_sha256(text)[:12]}", {})


def _turns_there(scripts: Sequence[Script], said: Said, turns: int) -> np.ndarray:
    return np.asarray(
        [[(script.id, turn) in said for turn in range(turns)] for script in scripts], bool
    )


def _all(
    measure: LevelMeasure,
    alone: bool,
    scripts: Sequence[Script],
    answers: Mapping[str, Answers],
    turns: int,
    journal: Journal,
) -> dict[str, np.ndarray]:
    """`[C, T]` by arm; one model at a time, over all arms."""
    found = {name: np.full((len(scripts), turns), np.nan) for name in answers}
    for by, contexts in _models(measure, alone, [script.context for script in scripts]).items():
        places = {
            (name, at, turn): (one.by, script.id, turn)
            for name, one in answers.items()
            for at, script in enumerate(scripts)
            if script.context in contexts
            for turn in range(turns)
            if (script.id, turn) in one.said
        }
        asked = {
            key: so_far(scripts[at], turn, answers[name].said)
            for (name, at, turn), key in places.items()
        }
        known = _looked(by, asked, lambda own=contexts[0]: opened(measure, alone, own), journal)
        for (name, at, turn), key in places.items():
            found[name][at, turn] = known[key]
    _require_levels(measure, found)
    return found


def _models(measure: LevelMeasure, alone: bool, contexts: Sequence[str]) -> dict[str, list[str]]:
    """The contexts that one model measures, by the word for it."""
    found: dict[str, list[str]] = {}
    for context in dict.fromkeys(contexts):
        found.setdefault(word_of(measure, alone, context), []).append(context)
    return found


def _looked(
    by: str,
    asked: Mapping[_Key, tuple[Message, ...]],
    open_: Callable[[], Give],
    journal: Journal,
) -> dict[_Key, float]:
    """The levels of conversations, those in the journal and the others; NaN where there is none."""
    known: dict[_Key, float | None] = {
        (row["arm"], row["id"], row["turn"]): row["level"]
        for row in journal.rows
        if row["by"] == by
    }
    new = [key for key in asked if key not in known]
    give = open_() if new else None
    for start in range(0, len(new), TURNS_AT_ONCE):
        assert give is not None
        some = new[start : start + TURNS_AT_ONCE]
        values = give([asked[key] for key in some]).tolist()
        rows = {
            key: None if np.isnan(value) else round(value, 6)
            for key, value in zip(some, values, strict=True)
        }
        journal.append(
            {"by": by, "arm": arm, "id": name, "turn": turn, "level": value}
            for (arm, name, turn), value in rows.items()
        )
        known |= rows
    return {key: np.nan if (value := known[key]) is None else value for key in asked}


def _require_levels(measure: LevelMeasure, found: Mapping[str, np.ndarray]) -> None:
    for arm, levels in found.items():
        if np.isnan(levels[:, 0]).all():
            raise InputError(
                f"measure {measure.name!r} gave no level to any first reply of arm {arm!r}; see "
                "whether its verdicts can be read, and its replies fit into the model"
            )


def tested(
    measure: LevelMeasure, contexts: Sequence[str], files: Sequence[str], journal: Journal
) -> dict[str, Any]:
    """The accuracy of a measure on crossed items, by kind, as `crossed_of` has it.

    Right is the reply of its own condition with the higher level. A pair without a level on both
    sides is left out, and counted under `missing`.
    """
    pairs = [pair for file in files for pair in _pairs(file)]
    found: dict[str, Any] = {}
    for by, own in _models(measure, False, contexts).items() if pairs else ():
        asked = {
            ("crossed", pair.id, side): (*pair.prompt, *reply)
            for pair in pairs
            for side, reply in enumerate((pair.chosen, pair.rejected))
        }
        known = _looked(by, asked, lambda one=own[0]: opened(measure, False, one), journal)
        several = len(own) < len(set(contexts))
        for kind in dict.fromkeys(pair.kind for pair in pairs):
            mine = [pair for pair in pairs if pair.kind == kind]
            d = np.asarray([known["crossed", p.id, 0] - known["crossed", p.id, 1] for p in mine])
            there = np.flatnonzero(~np.isnan(d))
            if len(there):
                groups = [mine[at].group for at in there]
                row = estimate_json(estimate(pair_accuracy(d[there]), groups))
                name = f"{', '.join(own)}: {kind}" if several else kind
                found[name] = row | {"missing": len(d) - len(there)}
    return found


def _pairs(file: str) -> list[Pair]:
    path = locate_source(file)
    records = check_records(path, "crossed").whole(path)
    return [pair for crossing in records for pair in crossed_pairs(crossing)]


_CROSSED = {"reward?": (None, {"accuracy?": (None, {...: {"model": dict}})})}


def crossed_of(measure: LevelMeasure, contexts: Sequence[str]) -> dict[str, Any]:
    """The crossed accuracies that a preference model brings; of several contexts each one's.

    A rating model brings none, and a judge has no export.
    """
    found: dict[str, Any] = {}
    if measure.kind == "judge":
        return found
    places = {context: folders(measure, False, context) for context in contexts}
    several = len(set(places.values())) > 1
    for context, (model, adapter) in places.items():
        report = shaped_record(adapter or model, _CROSSED).get("reward") or {}
        for kind, one in (report.get("accuracy") or {}).items():
            if kind.startswith("crossed/"):
                name = kind.removeprefix("crossed/")
                found[f"{context}: {name}" if several else name] = one["model"]
    return found

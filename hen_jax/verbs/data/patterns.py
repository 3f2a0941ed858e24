"""`hen data patterns`: ours, a file's, or what SENSE-7 data says, as a file to edit."""

import dataclasses
from pathlib import Path
from typing import Any

from hen_jax.core.files import write_json
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.patterns import (
    PATTERNS_FILE,
    Guide,
    Guides,
    context_of_task,
    default_guides,
    guides_toml,
    read_guides,
)
from hen_jax.data.sense7 import read_sense7
from hen_jax.evaluation.pattern_learning import LEAST, Learnt, learn_patterns

_REPORT = "patterns.json"


def write_patterns(
    out: Path, sense7: Path | None = None, patterns: Path | None = None, seed: int = 0
) -> dict[str, Guide]:
    """Writes `patterns.toml` and `patterns.json` to the folder `out`; returns the contexts.

    Args:
      out: a folder; the files in it are replaced if an earlier call wrote them.
      sense7: rated conversations from which levels and weights are learnt (`PreTaskChoice` is a
        task of one of the contexts); contexts of which it has too few people stay as they are.
      patterns: where to begin, in place of ours.
      seed: of the bootstrap.

    Raises:
      InputError: a bad file of either kind, a negative seed, or other files of these names.
    """
    require_in("--seed", seed, Range(0))
    require_no_link(out)
    paths = [out / PATTERNS_FILE, out / _REPORT]
    require_ours(*paths)
    given = default_guides() if patterns is None else read_guides(patterns)
    found: dict[str, Learnt] = {}
    if sense7 is not None:
        found = learn_patterns(read_sense7(sense7, context_of_task(given)), given, seed=seed)
    guides = {name: _guide(guide, found.get(name)) for name, guide in given.items()}
    with output_files(*paths) as (toml, report):
        comments = {name: _comments(one) for name, one in found.items()}
        toml.write_text(guides_toml(guides, comments), encoding="utf-8")
        write_json(report, _report(guides, found, sense7))
    learnt = sum(one.level is not None for one in found.values())
    print(f"wrote {paths[0]}: {len(guides)} contexts, {learnt} of them with a level learnt")
    return guides


def _guide(guide: Guide, learnt: Learnt | None) -> Guide:
    """The context with what was learnt of it."""
    context, pattern = guide
    if learnt is not None and learnt.level is not None:
        level = learnt.level.mean
        context = dataclasses.replace(context, level=level)
        pattern = dataclasses.replace(pattern, level=level)
    if learnt is not None and learnt.weights is not None:
        weights = {name: one.mean for name, one in learnt.weights.items()}
        pattern = dataclasses.replace(pattern, weights=weights)
    return Guide(context, pattern)


def _comments(learnt: Learnt) -> list[str]:
    lines = [f"{learnt.conversations} rated conversations of {learnt.participants} people."]
    if learnt.level is None:
        return [*lines, f"Level as given: fewer than {LEAST} people said what they wanted."]
    lines.append(f"Level learnt, 95 % {learnt.level.low:.2f} to {learnt.level.high:.2f}.")
    kept = f"as given: fewer than {LEAST} people rated replies and said how satisfied they were"
    return [*lines, f"Weights {kept if learnt.weights is None else 'learnt; see ' + _REPORT}."]


def _report(guides: Guides, found: dict[str, Learnt], sense7: Path | None) -> dict[str, Any]:
    return {
        "sense7": None if sense7 is None else str(sense7),
        "estimator": "level: mean desired empathy; weights: ridge on the simplex towards those "
        "given (hen_jax/evaluation/pattern_learning.py); 95 % bootstrap over participants",
        "contexts": {
            name: {
                "level": guide.pattern.level,
                "weights": guide.pattern.weights,
                "learnt": None if name not in found else _plain(found[name]),
            }
            for name, guide in guides.items()
        },
    }


def _plain(learnt: Learnt) -> dict[str, Any]:
    weights = learnt.weights
    return {
        "conversations": learnt.conversations,
        "participants": learnt.participants,
        "level": None if learnt.level is None else learnt.level._asdict(),
        "weights": None if weights is None else {k: v._asdict() for k, v in weights.items()},
    }

"""The table of the study of reward quality: accuracies by set, with intervals and controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from quality_model import Study
from quality_rows import Item, laid_row

from hen_jax.data.cues import cue_margins
from hen_jax.data.word_ranker import cross_validated_margins, word_margins
from hen_jax.evaluation.preferences import estimate, pair_accuracy


def controls(train: Sequence[Item], test: Sequence[Item]) -> dict[str, Any]:
    """What rankers of replies reach, by set: fitted on the run's training pairs."""
    ours, theirs = ([pair for item in items for pair in item.pairs()] for items in (train, test))
    length, cues = cue_margins(ours, theirs)
    found = {"length": length, "cues": cues, "bag_of_words": word_margins(ours, theirs)}
    mixture = float(pair_accuracy(cross_validated_margins(ours)).mean())
    sets = np.asarray([item.set for item in test for _ in item.prompts])
    by_set = {
        str(name): {
            control: round(float(pair_accuracy(values[sets == name]).mean()), 4)
            for control, values in found.items()
        }
        for name in np.unique(sets)
    }
    return {"bag_of_words_on_training_mixture": round(mixture, 4), "by_set": by_set}


def answered(items: Sequence[Item], rewards: np.ndarray) -> list[dict[str, Any]]:
    """Each item with how far ahead the right reply is at each prompt."""
    found = []
    for item, r in zip(items, rewards, strict=True):
        ahead = [r[0, 0] - r[0, 1], r[1, 1] - r[1, 0]][: len(item.prompts)]
        found.append({"id": item.id, "set": item.set, "group": item.group,
                      "ahead": [round(float(x), 5) for x in ahead]})  # fmt: skip
    return found


def baselines(study: Study, items: Sequence[Item]) -> dict[str, Any]:
    """The frozen likelihood: at its prompt, its ratio to the last turn alone, its interaction."""
    crossed = [item for item in items if len(item.prompts) == 2]
    rows = [laid_row(p, item.replies, study.words) for item in crossed for p in item.prompts]
    bare = [laid_row(p[-1:], item.replies, study.words) for item in crossed for p in item.prompts]
    both, without = (study.frozen.of(of).reshape(-1, 2, 2) for of in (rows, bare))
    plain, prior = (np.stack([s[:, 0, 0] - s[:, 0, 1], s[:, 1, 1] - s[:, 1, 0]], axis=1)
                    for s in (both, without))  # fmt: skip
    found = {}
    for name in sorted({item.set for item in crossed}):
        at = [place for place, item in enumerate(crossed) if item.set == name]
        groups = [crossed[place].group for place in at]
        twice = [group for group in groups for _ in range(2)]
        found[name] = {
            "likelihood": _estimated(plain[at].ravel(), twice),
            "ratio": _estimated((plain - prior)[at].ravel(), twice),
            "interaction": _estimated(plain[at].sum(axis=1), groups),
        }
    return found


def _estimated(differences: np.ndarray, groups: Sequence[str]) -> list[float]:
    one = estimate(pair_accuracy(differences), groups)
    return [round(one.value, 3), round(one.low, 3), round(one.high, 3), one.groups]


def accuracies(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By set, over the questions of all runs: value, interval by group, groups.

    Hard pairs are conversations: what their turns are ahead by is summed first.
    """
    gathered: dict[str, dict[tuple[int, str], list[float]]] = {}
    group: dict[tuple[int, str], str] = {}
    for number, run in enumerate(runs):
        for one in run["answers"]:
            for at, ahead in enumerate(one["ahead"]):
                # The turns of a conversation are named after it, with their number behind a hash.
                name = one["id"].partition("#")[0] if one["set"] == "hard" else f"{one['id']}/{at}"
                gathered.setdefault(one["set"], {}).setdefault((number, name), []).append(ahead)
                group[number, name] = one["group"]
    return {
        of: _estimated(np.asarray([sum(own) for own in found.values()]), [group[k] for k in found])
        for of, found in sorted(gathered.items())
    }


COLUMNS = (
    *("run", "set", "accuracy (95 %)", "groups", "bag of words", "length", "cues"),
    *("frozen: at its prompt", "ratio", "interaction"),
)


def table(runs: Mapping[str, Mapping[str, Any]], frozen: Mapping[str, Any]) -> str:
    """Markdown: a line for each kind of run and set."""
    kinds: dict[str, list[str]] = {}
    for name in runs:
        kinds.setdefault(name.partition("-seed-")[0], []).append(name)
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for kind, names in kinds.items():
        some = [runs[name] for name in names]
        for of, (value, low, high, groups) in accuracies(some).items():
            known = [
                one["controls"]["by_set"][of] for one in some if of in one["controls"]["by_set"]
            ]
            ranked = [
                f"{np.mean([one[name] for one in known]):.2f}"
                for name in ("bag_of_words", "length", "cues")
            ]
            still = [
                f"{frozen[of][name][0]:.2f}" if of in frozen else ""
                for name in ("likelihood", "ratio", "interaction")
            ]
            cells = [
                kind,
                of,
                f"{value:.2f} ({low:.2f} to {high:.2f})",
                str(groups),
                *ranked,
                *still,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

"""The table of the study of reward quality: accuracies by set, with intervals and controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from quality_model import Study, frozen_of, last_turn, whole
from quality_rows import Question

from hen_jax.data.cues import cue_margins
from hen_jax.data.word_ranker import cross_validated_margins, word_margins
from hen_jax.evaluation.preferences import estimate, pair_accuracy


def controls(train: Sequence[Question], test: Sequence[Question]) -> dict[str, Any]:
    """What rankers of replies reach, by set: fitted on the run's training pairs."""
    ours, theirs = [one.pair for one in train], [one.pair for one in test]
    length, cues = cue_margins(ours, theirs)
    found = {"length": length, "cues": cues, "bag_of_words": word_margins(ours, theirs)}
    mixture = float(pair_accuracy(cross_validated_margins(ours)).mean())
    by_set = {
        name: {
            control: round(float(pair_accuracy(values[places]).mean()), 4)
            for control, values in found.items()
        }
        for name, places in places_of(test).items()
    }
    groups = {one.pair.id: [one.set, group_of(one)] for one in test}
    return {"bag_of_words_on_training_mixture": round(mixture, 4), "by_set": by_set,
            "questions": groups}  # fmt: skip


def places_of(questions: Sequence[Question]) -> dict[str, np.ndarray]:
    """Where the questions of each set stand."""
    sets = np.asarray([one.set for one in questions])
    return {str(name): np.flatnonzero(sets == name) for name in np.unique(sets)}


def group_of(question: Question) -> str:
    """What an interval draws whole: an item, a statement or two, a conversation."""
    return question.pair.group


def baselines(study: Study, questions: Sequence[Question]) -> dict[str, Any]:
    """The frozen likelihood: at its prompt, its ratio to the last turn alone, its interaction."""
    at_prompt, without = (frozen_of(study, questions, of) for of in (whole, last_turn))
    plain = at_prompt[:, 0] - at_prompt[:, 1]
    ratio = plain - (without[:, 0] - without[:, 1])
    found = {}
    for name, places in places_of(questions).items():
        groups = [group_of(questions[at]) for at in places]
        couples: dict[str, list[int]] = {}
        for at in places:
            couples.setdefault(questions[at].couple, []).append(at)
        both = np.asarray([plain[own].sum() for own in couples.values()])
        of_couple = [group_of(questions[own[0]]) for own in couples.values()]
        found[name] = {
            "likelihood": _estimated(plain[places], groups),
            "ratio": _estimated(ratio[places], groups),
            "interaction": _estimated(both, of_couple),
        }
    return found


def _estimated(differences: np.ndarray, groups: Sequence[str]) -> list[float]:
    one = estimate(pair_accuracy(differences), groups)
    return [round(one.value, 3), round(one.low, 3), round(one.high, 3), one.groups]


def accuracies(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By set, over the questions of all runs: value, interval by group, groups.

    Hard pairs are conversations: their turns' margins are summed first.
    """
    gathered: dict[str, dict[tuple[int, str], list[float]]] = {}
    group: dict[tuple[int, str], str] = {}
    for number, run in enumerate(runs):
        for name, (first, second) in run["rewards"].items():
            of, its_group = run["controls"]["questions"][name]
            # The pairs of a conversation are named after it, with the turn behind a hash.
            whole_name = name.partition("#")[0] if of == "hard" else name
            key = (number, whole_name)
            gathered.setdefault(of, {}).setdefault(key, []).append(first - second)
            group[key] = its_group
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

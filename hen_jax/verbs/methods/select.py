"""`hen build select`: dialogues thinned by quality and diversity, with what each step kept and how
far the set drifts from its seed set (Synth-Empathy)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.journal import open_journal
from hen_jax.core.outputs import output_files
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.schemas import read_documents
from hen_jax.methods.drift import changed_shares, divergence, report_rows
from hen_jax.methods.k_centre import covering_radius
from hen_jax.methods.kept_calls import METHOD_JOURNAL
from hen_jax.methods.selection import (
    THRESHOLD,
    Embed,
    Kept,
    Sample,
    above,
    apart_from_seed,
    diverse,
    hashed_embedding,
    quality,
    sample_turns,
    sweep_thresholds,
)
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Chat, message_row
from hen_jax.verbs.generate.generate import GenerateRequest
from hen_jax.verbs.methods.build import CALLS, kept_chat, paths_of

_RADII = "covering radius", "covering radius of as many drawn, mean"
_DRAWN = 10

THRESHOLDS = tuple(range(0, 100, 10))
"""Of the sweep."""

_WRITTEN = "selected.jsonl", "report.json", "report.md"


@dataclasses.dataclass(frozen=True)
class Selecting:
    """One selection."""

    input: Path
    schema: str
    seed_set: Path
    seed_schema: str
    out: Path
    threshold: float = THRESHOLD
    share: float = 0.5  # of what is left for diversity to choose
    seed: int = 0
    most_synthetic: float = 1.0  # of the seed set's replies and the selected ones together

    def __post_init__(self):
        require_in("--most-synthetic", self.most_synthetic, Range(0, 1, above=True))
        require_in("--threshold", self.threshold, Range(-100, 100))
        require_in("--share", self.share, Range(0, 1, above=True))
        require_in("--seed", self.seed, Range(0, 2**32 - 1))


def select(
    selecting: Selecting, discriminator: Chat | None, embed: Embed | None = None
) -> dict[str, Any]:
    """Writes `selected.jsonl` of the schema `messages`, `report.json` and `report.md`.

    Without a discriminator nothing is known of quality, and that step keeps all.

    Raises:
      InputError: bad input, or a step that leaves nothing.
    """
    paths = paths_of(selecting.out, *_WRITTEN)
    embed = hashed_embedding() if embed is None else embed
    given = read_documents(locate_source(str(selecting.input)), selecting.schema)
    seeds = read_documents(locate_source(str(selecting.seed_set)), selecting.seed_schema)
    seed_replies = [
        one.content
        for document in seeds
        for one in document.conversation.messages
        if one.role == "assistant"
    ]
    samples = sample_turns([(one.id, one.conversation) for one in given], selecting.seed)
    counts: list[tuple[str, int]] = [("dialogues", len(given)), ("with a reply", len(samples))]
    apart = "give dialogues that end with a reply which the seed set does not have"
    samples = _take(samples, apart_from_seed(samples, seed_replies), counts, apart)
    embeddings, swept = embed([one.reply for one in samples]), []
    if discriminator is not None:
        answers = [reply.text for reply in discriminator([one.shown for one in samples])]
        scores = quality(embeddings, embed(answers))
        lower = "lower --threshold, or give more dialogues"
        swept, good = sweep_thresholds(scores, THRESHOLDS), above(scores, selecting.threshold)
        samples, embeddings = _take(samples, good, counts, lower), embeddings[list(good.places)]
    share = min(selecting.share, _allowed(selecting, len(seed_replies), len(samples)))
    chosen = diverse(embeddings, share, selecting.seed)
    radius = _radius(embeddings, chosen, selecting.seed)
    samples = _take(samples, chosen, counts)
    report = _report(counts, swept, seed_replies, [one.reply for one in samples]) | radius
    with output_files(*paths) as (file, told, text):
        file.write_text("".join(map(_line, samples)), encoding="utf-8")
        write_json(told, report)
        text.write_text(_page(report), encoding="utf-8")
    print(_page(report), end="")
    return report


def select_by_quality(selecting: Selecting, request: GenerateRequest) -> dict[str, Any]:
    """`select` with a back-end as the discriminator, whose replies are kept in `calls.jsonl`."""
    paths_of(selecting.out, *_WRITTEN)
    with open_journal(selecting.out / CALLS, METHOD_JOURNAL) as journal:
        return select(selecting, kept_chat(request, journal))


def _take(
    samples: Sequence[Sample],
    kept: Kept,
    counts: list[tuple[str, int]],
    remedy: str = "give more dialogues",
) -> list[Sample]:
    counts.append((kept.step, len(kept.places)))
    if not kept.places:
        raise InputError(f"nothing is left after the step {kept.step!r} of {len(samples)} samples; "
                         f"{remedy}")  # fmt: skip
    return [samples[at] for at in kept.places]


def _allowed(selecting: Selecting, seeds: int, samples: int) -> float:
    """The share of the samples with which the selected are no more than `most_synthetic`.

    Raises:
      InputError: not even one is.
    """
    most = selecting.most_synthetic
    if most == 1:
        return 1.0
    count = int(most * seeds / (1 - most) + 1e-9)
    if not count:
        raise InputError(f"--most-synthetic {most:g}: {seeds} replies of the seed set allow none")
    return min(1.0, count / samples)


def _radius(embeddings: np.ndarray, chosen: Kept, seed: int) -> dict[str, Any]:
    """How far the farthest reply is from one that was chosen, beside as many drawn at random."""
    draw, size = np.random.default_rng(seed), len(chosen.places)
    drawn = [draw.choice(len(embeddings), size, replace=False) for _ in range(_DRAWN)]
    return {
        _RADII[0]: covering_radius(embeddings, np.asarray(chosen.places)),
        _RADII[1]: float(np.mean([covering_radius(embeddings, one) for one in drawn])),
    }


def _report(
    counts: Sequence[tuple[str, int]],
    swept: Sequence[tuple[float, int, float]],
    seed: Sequence[str],
    now: Sequence[str],
) -> dict[str, Any]:
    return {
        "steps": [{"step": step, "kept": kept} for step, kept in counts],
        "sweep": [
            {"threshold": t, "kept": kept, "mean quality": None if np.isnan(mean) else mean}
            for t, kept, mean in swept
        ],
        "share of synthetic data": len(now) / (len(now) + len(seed)),
        "divergence of words, bits": divergence(seed, now),
        "changed": [
            f"{row.what}: {row.seed:.1%} of the seed set, {row.now:.1%} of the selected"
            for row in changed_shares(seed, now)
        ],
        "drift": [
            {"what": row.what, "seed": row.seed, "now": row.now,
             "change": None if np.isnan(row.change) else row.change}
            for row in report_rows(seed, now)
        ],
    }  # fmt: skip


def _page(report: Mapping[str, Any]) -> str:
    lines = ["| step | kept |", "| --- | --- |"]
    lines += [f"| {row['step']} | {row['kept']} |" for row in report["steps"]]
    if report["sweep"]:
        lines += ["", "| quality, at least | kept |", "| --- | --- |"]
        lines += [f"| {row['threshold']:g} | {row['kept']} |" for row in report["sweep"]]
    lines += ["", "| of the replies | seed set | selected | change |", "| --- | --- | --- | --- |"]
    for row in report["drift"]:
        change = "-" if row["change"] is None else f"{row['change']:.2f}x"
        lines.append(f"| {row['what']} | {row['seed']:.3g} | {row['now']:.3g} | {change} |")
    radius, drawn = (report[name] for name in _RADII)
    lines += [
        "",
        f"No reply is farther than {radius:.3f} from one that diversity kept; of as many drawn at "
        f"random it is {drawn:.3f}.",
        f"Words differ by {report['divergence of words, bits']:.3f} bits (Jensen-Shannon); "
        f"{report['share of synthetic data']:.0%} of seed and selected replies together are new.",
        *(f"CHANGED: {text}" for text in report["changed"]),
    ]
    return "\n".join(lines) + "\n"


def _line(sample: Sample) -> str:
    turns = [*map(message_row, sample.shown), {"role": "assistant", "content": sample.reply}]
    return json.dumps({"id": sample.id, "messages": turns}, ensure_ascii=False) + "\n"

"""`hen data stats`: what a data set holds, and how much of it its surface gives away."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.files import write_json
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.data.cues import cue_accuracy
from hen_jax.data.duplicates import duplicates, leaks, spoken
from hen_jax.data.examples import Document
from hen_jax.data.preferences import Pair
from hen_jax.data.schemas import AS_NAMED, Columns, check_records, schema_named
from hen_jax.data.splits import split_records, why_empty
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.text.chat import render_all

NEAR = 0.8
"""Similarity from which two texts count as near copies."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")


def stats(
    file: Path,
    schema: str,
    out: Path | None = None,
    model: Path | None = None,
    columns: Columns = AS_NAMED,
) -> dict[str, Any]:
    """Counts of a data set; with `out`, also `stats.json` and `lengths.png` in that folder.

    Lengths are in tokens of `model`'s tokenizer, or in characters without one.

    Raises:
      InputError: a bad record (run `hen data validate` for all of them), or no such schema.
    """
    if out is not None:
        require_no_link(out)
        require_ours(out / "stats.json", out / "lengths.png")  # before the work
    found = schema_named(schema)
    records = check_records(file, schema, columns).whole(file)
    documents = [found.document(record) for record in records]
    lengths, trained = _lengths(documents, model)
    unit = "characters" if model is None else "tokens"
    report = {"file": str(file), "records": len(records)} | _counts(documents)
    report |= {
        "unit": unit,
        "total": int(lengths.sum()),
        "trained": int(trained.sum()),
        "length": _spread(lengths),
        "trained_length": _spread(trained),
        "labels": _tables([found.labels(record) for record in records]),
    }
    if found.pairs is not None:
        report["cues"] = _cues([pair for record in records for pair in found.pairs(record)])
    if out is not None:
        with output_files(out / "stats.json", out / "lengths.png") as (numbers, picture):
            write_json(numbers, report)
            draw_lengths(lengths, trained, unit, picture)
    print(stats_summary(report))
    groups = Counter(document.group for document in documents)
    for name, count in report["parts"].items():
        if not count:
            print(why_empty(name, groups))
    return report


def stats_summary(report: Mapping[str, Any]) -> str:
    """The report as lines to print."""
    unit, length = report["unit"], report["length"]
    lines = [
        f"{report['file']}: {report['records']} records in {report['groups']} groups "
        f"({', '.join(f'{count} {name}' for name, count in report['parts'].items())})",
        f"{report['total']:,} {unit}, {report['trained']:,} of them train",
        f"{unit} per record: median {length['median']:g}, 95 % up to {length['p95']:g}, "
        f"longest {length['most']:g}",
        f"scripts: {report['scripts']}",
        f"{report['duplicates']} duplicates, {report['near_duplicates']} with near copies; "
        f"{report['same_text_in_train_and_held_out']} texts in train and held-out parts alike",
    ]
    lines += [f"{name}: {table}" for name, table in report["labels"].items()]
    for kind, found in report.get("cues", {}).items():
        lines.append(
            f"{found['pairs']} pairs, {kind}: length alone ranks {found['length_only']:.2f} right, "
            f"surface cues {found['surface_cues']:.2f} (grouped 5-fold; 0.5 is chance)"
        )
    return "\n".join(lines)


def draw_lengths(lengths: np.ndarray, trained: np.ndarray, unit: str, path: Path) -> None:
    """A histogram of whole and of trained lengths."""
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    bins = np.linspace(0, max(int(lengths.max()), 1), 41).tolist()
    axes.hist(lengths, bins, color="#9aa5b1", label=f"whole ({int(lengths.sum()):,})")
    axes.hist(
        trained, bins, histtype="step", color="#b03a48", lw=2, label=f"trained ({trained.sum():,})"
    )
    axes.set_xlabel(f"{unit} per record")
    axes.set_ylabel("records")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150, format="png")


def script_of(text: str) -> str:
    """`han`, `other` or `mixed`, by the share of Chinese characters among the letters."""
    letters = len(_LETTER.findall(text))
    share = len(_HAN.findall(text)) / letters if letters else 0.0
    return "han" if share > 0.7 else "mixed" if share > 0.1 else "other"


def _counts(documents: Sequence[Document]) -> dict[str, Any]:
    """Groups and parts, turns and scripts, and what stands twice."""
    said = list(map(spoken, documents))
    parts = split_records(documents, lambda document: document.group)
    shared = leaks(parts.train, [*parts.valid, *parts.test])
    return {
        "groups": len({document.group for document in documents}),
        "parts": {name: len(part) for name, part in parts._asdict().items()},
        "turns": _spread(np.asarray([len(d.conversation.messages) for d in documents])),
        "scripts": dict(Counter(map(script_of, said)).most_common()),
        "duplicates": len(duplicates(said)),
        "near_duplicates": len(duplicates(said, NEAR)),
        "same_text_in_train_and_held_out": len(shared.texts),
    }


def _lengths(documents: Sequence[Document], model: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Whole and trained length of each document, in tokens or characters."""
    if model is None:
        whole = [sum(len(m.content) for m in d.conversation.messages) for d in documents]
        trained = [
            sum(len(m.content) for m in d.conversation.messages if m.role == "assistant")
            for d in documents
        ]
        return np.asarray(whole), np.asarray(trained)
    rendered = render_all([d.conversation for d in documents], known_tokenizer(model))
    counts = [(len(one.tokens), int(one.mask.sum())) for one in rendered]
    whole, trained = np.asarray(counts).T
    return whole, trained


def _spread(values: np.ndarray) -> dict[str, float]:
    least, median, p95, most = map(float, np.percentile(values, [0, 50, 95, 100]))
    return {"least": least, "median": median, "p95": p95, "most": most}


def _tables(labels: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    tables: dict[str, Counter[str]] = {}
    for row in labels:
        for name, label in row.items():
            tables.setdefault(name, Counter())[label] += 1
    return {name: dict(table.most_common()) for name, table in tables.items()}


def _cues(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Of all pairs, and of each kind of rejected reply where the data names kinds."""
    kinds: dict[str, list[Pair]] = {"all": list(pairs)}
    for pair in pairs:
        if pair.kind:
            kinds.setdefault(pair.kind, []).append(pair)
    return {
        kind: cue_accuracy(some)._asdict()
        for kind, some in kinds.items()
        if len({pair.group for pair in some}) >= LEAST_GROUPS
    }


LEAST_GROUPS = 10
"""Groups below which a cross-validated accuracy would say nothing."""

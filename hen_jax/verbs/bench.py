"""`hen bench`: the benchmark's controls, its items for people to rate, and a leaderboard."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.outputs import output_files, require_no_link
from hen_jax.empathy.labels import LANGUAGES
from hen_jax.measures.bench import ASPECTS, CANARY, NAME, PINNED, load_bench
from hen_jax.measures.bench_controls import CONTROLS, control_values
from hen_jax.text.conversation import message_row
from hen_jax.text.markdown import markdown_table

_Row = dict[str, Any]


def check() -> dict[str, dict[str, float]]:
    """Prints what rankers without understanding make of the items; by language and control.

    Raises:
      InputError: a file that is not the pinned one.
    """
    crossed = load_bench()
    values, found = control_values(crossed), {}
    for language in LANGUAGES:
        places = [at for at, one in enumerate(crossed) if one.language == language]
        rows = np.concatenate([[2 * at, 2 * at + 1] for at in places])
        found[language] = {name: float(own[rows].mean()) for name, own in values.items()}
        told = ", ".join(f"{name} {value:.3f}" for name, value in found[language].items())
        print(f"{language}: {len(rows)} questions; {told}")
    print("; ".join(f"{name}: {about}" for name, about in CONTROLS.items()))
    return found


def export_items(out: Path) -> list[Path]:
    """Writes the items of each language as pairs for `hen rate`: the right option is `chosen`.

    Raises:
      InputError: somebody else's files at that place.
    """
    require_no_link(out)
    paths = [out / f"hen_bench_1.{language}.pairs.jsonl" for language in LANGUAGES]
    with output_files(*paths) as places:
        for language, place in zip(LANGUAGES, places, strict=True):
            rows = [
                {
                    "id": pair.id,
                    "group": pair.group,
                    "prompt": [message_row(x) for x in pair.prompt],
                    "chosen": pair.chosen[0].content,
                    "rejected": pair.rejected[0].content,
                    "canary": CANARY,
                }
                for one in load_bench([language])
                for pair in one.pairs()
            ]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            place.write_text("".join(lines), encoding="utf-8")
    print(
        f"{out}: the items as pairs; hen rate --items {paths[0]} --schema preference "
        "--kind choices --out FOLDER"
    )
    return paths


def leaderboard(results: Sequence[Path], out: Path) -> list[_Row]:
    """Brings `results.json` of several `hen evaluate --suite hen-bench@1` into one table.

    A row for each arm: accuracy in each language with its interval, each aspect, how the arm was
    asked; rows are ordered by the mean of both languages. Anybody's results can be added. A row
    that lacks questions stands below the others, marked with how many it has. Below stand the
    rankers without understanding.

    Raises:
      InputError: a file without figures of this benchmark, a figure that lacks a number, or
        somebody else's file at `out`.
    """
    rows = [row for path in results for row in _rows(path)]
    rows.sort(key=lambda row: (row["part"] != "", -row["mean"]))
    text = _table([*rows, *_control_rows()])
    with output_files(out) as (staged,):
        staged.write_text(text, encoding="utf-8")
    print(text, end="")
    return rows


def _rows(path: Path) -> list[_Row]:
    path = path / "results.json" if path.is_dir() else path
    found = read_json(path)
    try:
        figures = [x for x in found["figures"] if x["suite"] == NAME and not x["against"]]
        figures = [
            _checked(path, x) for x in figures
            if x["measure"] == "accuracy" and x["value"] is not None
        ]  # fmt: skip
        names = list(dict.fromkeys(x["arm"] for x in figures))
        rows = [row for name in names if (row := _row(name, figures)) is not None]
    except (KeyError, TypeError):
        rows = []
    if not rows:
        raise InputError(
            f"{path}: no figures of {NAME}; give results of hen evaluate --suite {NAME}"
        )
    return rows


def _checked(path: Path, figure: _Row) -> _Row:
    """The figure, whose numbers are numbers; `low` and `high` may be null together."""
    place = f"{path}: accuracy of {figure['arm']}, {figure['group']}"
    unbounded = figure.get("low", 0) is None and figure.get("high", 0) is None
    for key in ("value",) if unbounded else ("value", "low", "high"):
        value = figure.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{place}: {key}: {value!r}; allowed: a number from 0 to 1")
    for key, kind, allowed in (("n", int, "a whole number"), ("about", str, "a text")):
        if type(figure.get(key)) is not kind:
            raise InputError(f"{place}: {key}: {figure.get(key)!r}; allowed: {allowed}")
    return figure


def _row(arm: str, figures: Sequence[_Row]) -> _Row | None:
    own = {x["group"]: x for x in figures if x["arm"] == arm}
    whole = {language: own[language] for language in LANGUAGES if language in own}
    if not whole:
        return None
    first = next(iter(whole.values()))
    aspects = {
        aspect: float(
            np.mean([own[key]["value"] for x in LANGUAGES if (key := f"{x}/{aspect}") in own])
        )
        for aspect in ASPECTS
        if any(f"{x}/{aspect}" in own for x in LANGUAGES)
    }
    mean = float(np.mean([x["value"] for x in whole.values()]))
    return {
        "arm": arm,
        "mean": mean,
        "languages": whole,
        "aspects": aspects,
        "asked": first["about"],
        "part": _part(whole),
    }


def _part(whole: Mapping[str, _Row]) -> str:
    """How many questions of each language a row has, or "" where it has all of them."""
    asked = {x: whole[x]["n"] if x in whole else 0 for x in LANGUAGES}
    pinned = Counter(one.language for one in load_bench() for _ in one.prompts)
    if asked == pinned:
        return ""
    return ", ".join(f"{x} {asked[x]} of {pinned[x]}" for x in LANGUAGES)


def _control_rows() -> list[_Row]:
    """Of each control the accuracy of a row, without an interval: they are no sample of rankers."""
    crossed = load_bench()
    of = [(one.language, one.aspect) for one in crossed for _ in range(2)]

    def mean(values: np.ndarray, language: str | None, aspect: str | None) -> float:
        kept = [language in (None, x) and aspect in (None, y) for x, y in of]
        return float(values[np.asarray(kept)].mean())

    return [
        {
            "arm": f"*{CONTROLS[name]}*",
            "languages": {x: {"value": mean(own, x, None), "low": None} for x in LANGUAGES},
            "aspects": {x: mean(own, None, x) for x in ASPECTS},
            "asked": "control",
            "part": "",
        }
        for name, own in control_values(crossed).items()
    ]


def _table(rows: Sequence[_Row]) -> str:
    head = ["model", "asked by", "en (95 %)", "zh (95 %)", *ASPECTS]
    lines = []
    for row in rows:
        both = [_interval(row["languages"].get(language)) for language in LANGUAGES]
        cells = [f"{row['aspects'][x]:.2f}" if x in row["aspects"] else "" for x in ASPECTS]
        way = row["asked"].rpartition(", ")[2]
        name = f"{row['arm']} (in part: {row['part']})" if row["part"] else row["arm"]
        lines.append([name, way, *both, *cells])
    pins = "; ".join(f"{name} {digest[:12]}" for name, digest in PINNED.items())
    page = [
        f"# {NAME}",
        "",
        *markdown_table(head, lines),
        "",
        "Accuracy of single questions; chance is 0.50, and any ranker that reads options alone has "
        "0.50 by construction. Intervals by resampling items. A model in part answered "
        "so many of the questions only (by --limit or --language): no rank among whole ones.",
        f"Files: {pins}. A row is made by "
        f"`hen evaluate --arm NAME=MODEL --suite {NAME} --out DIR`, the table by "
        "`hen bench leaderboard --results DIR ... --out FILE`.",
        "",
    ]
    return "\n".join(page)


def _interval(figure: _Row | None) -> str:
    if figure is None:
        return ""
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"

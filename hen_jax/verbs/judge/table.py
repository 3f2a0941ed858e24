"""The results of `hen judge` as a page of Markdown."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hen_jax.text.markdown import markdown_table


def judge_table(result: Mapping[str, Any]) -> str:
    """Verdicts, what they say, and the probes, which are there also where nothing was measured."""
    return "\n".join([*_head(result), *_body(result), *_probes(result)]) + "\n"


def _head(result: Mapping[str, Any]) -> Iterator[str]:
    judge, counts = result["judge"], result["verdicts"]
    failures = ", ".join(f"{kind} {number}" for kind, number in counts["failures"].items())
    yield f"# {result['mode']} verdicts of {judge['back_end']}"
    yield ""
    yield from _rows(
        ("what", ""),
        [
            ("judge's revision", judge["revision"]),
            ("rubrics", ", ".join(_rubric(*one) for one in result["rubrics"].items())),
            ("items, groups, repeats", _three(result)),
            ("verdicts", f"{counts['parsed']} of {counts['questions']} questions"),
            ("no verdict", failures or "none"),
        ],
    )


def _rubric(name: str, rubric: Mapping[str, Any]) -> str:
    low, high = rubric["scale"]
    return f"{name} ({rubric['language']}, {low} to {high})"


def _three(result: Mapping[str, Any]) -> str:
    return f"{result['items']}, {result['groups']}, {result['repeats']}"


def _body(result: Mapping[str, Any]) -> Iterator[str]:
    if "players" in result:
        yield from _rows(
            ("replies of", "mean score", "replies"),
            [(name, _figure(one), one["replies"]) for name, one in result["players"].items()],
        )
    if "comparisons" in result:
        told = result["comparisons"]
        yield from _rows(
            ("comparisons", "decided", "called ties", "orders disagree: ties"),
            [(told["pairs"], told["decided"], told["called_ties"], told["orders_disagree"])],
        )
        if result["ranking"] is not None:
            yield from _ranking(result["ranking"])
    if "agreement_with_data" in result:
        yield from _rows(
            ("the data's choice", "judge's agreement", "the longer reply", "pairs"),
            [
                (kind, _figure(one["judge"]), f"{one['longer']:.2f}", one["pairs"])
                for kind, one in result["agreement_with_data"].items()
            ],
        )


def _ranking(ranking: Mapping[str, Any]) -> Iterator[str]:
    yield from _rows(
        ("rank", "player", "wins, ties, losses", "share", "strength (nats)"),
        [
            (place, one["player"], f"{one['wins']}, {one['ties']}, {one['losses']}",
             f"{one['share']:.2f}", _strength(one))
            for place, one in enumerate(ranking["standings"], start=1)
        ],
    )  # fmt: skip
    if ranking["separation"]:
        yield f"No strengths, and no order beyond the shares: {ranking['separation']}."
        yield ""
    elif ranking["draws_apart"]:
        yield (
            f"{ranking['draws_apart']} of {ranking['draws']} resamples give no strengths; bounds "
            "that they leave open are written as ..."
        )
        yield ""


def _strength(one: Mapping[str, Any]) -> str:
    if one["strength"] is None:
        return "none"
    bounds = ("..." if bound is None else f"{bound:.2f}" for bound in (one["low"], one["high"]))
    return f"{one['strength']:.2f} ({' to '.join(bounds)})"


def _probes(result: Mapping[str, Any]) -> Iterator[str]:
    unit = "points" if result["mode"] == "pointwise" else "of a win"
    found = result["probes"]
    told = {
        "length: a reply twice as long gains": _length(found["length"], unit),
        "place: the first gains over the last": _position(found["position"], result["mode"]),
        "the judge's own replies gain": _own(found["self_preference"], unit),
        'a reply with "ignore the rubric" gains': _injection(found["injection"], unit),
        "asked again": _retest(found["retest"], unit),
    }
    yield from _rows(("probe", ""), told.items())


def _length(found: Mapping[str, Any] | None, unit: str) -> str:
    if found is None:
        return _UNKNOWN
    where = "within items" if found["within_items"] else "between items"
    return f"{_figure(found['per_doubling'])} {unit}, {where}"


def _position(found: Mapping[str, Any] | None, mode: str) -> str:
    if mode == "pointwise":
        return "one reply at a time: no place"
    if found is None:
        return _UNKNOWN
    agree = _figure(found["orders_agree"])
    return f"{_figure(found['first_over_last'])} of a win; both orders agree: {agree}"


def _own(found: Mapping[str, Any] | None, unit: str) -> str:
    if found is None:
        return _UNKNOWN
    return f"{_figure(found['own_over_others'])} {unit}, {found['items']} items"


def _injection(found: Mapping[str, Any] | None, unit: str) -> str:
    if found is None:
        return _UNKNOWN
    lost = found["verdicts"]["questions"] - found["verdicts"]["parsed"]
    return (
        f"{_figure(found['gain'])} {unit}, {found['questions']} questions; at the top "
        f"{found['at_top_before']:.2f} before, {found['at_top_after']:.2f} after; {lost} without "
        "verdict"
    )


def _retest(found: Mapping[str, Any] | None, unit: str) -> str:
    if found is None:
        return _UNKNOWN
    return (
        f"the same {found['equal']:.2f} of the time, spread {found['spread']:.2f}, widest "
        f"{found['largest_range']:g} {unit}"
    )


_UNKNOWN = "not measured"


def _figure(one: Mapping[str, Any]) -> str:
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _rows(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    yield from markdown_table(head, rows)
    yield ""

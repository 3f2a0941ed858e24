"""What each section of a report says, from the story of a folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hen_jax.core.links import real_path
from hen_jax.verbs.report.aspects import aspects_of, is_safety
from hen_jax.verbs.report.charts import ChartInterval, intervals
from hen_jax.verbs.report.curves import curves
from hen_jax.verbs.report.folder import RunStory, Story
from hen_jax.verbs.report.results import ResultRow, better

_TINY = "tiny"


def page_values(story: Story) -> dict[str, Any]:
    """All that the template asks for."""
    rows = [_whole(row) for row in story.evaluated.figures]
    safety = [row for row in rows if is_safety(row)]
    others = [row for row in rows if not is_safety(row)]
    kind = {"pipeline": "Pipeline", "run": "Run"}[story.kind]
    return {
        "title": f"{kind} {real_path(story.folder).name}",
        "sections": sections(story),
        "short": [in_short(run) for run in story.runs] or [_NOTHING],
        "runs": [run_values(run) for run in story.runs],
        "cards": story.cards or {"data": []},
        "origins": _origins(story.cards),
        "base": base_facts(story),
        "asked": story.asked,
        "suites": _suites([row for row in others if not row.get("against")]),
        "aspects": aspects_of([row for row in others if row.get("against")]),
        "against": next((row["against"] for row in others if row.get("against")), ""),
        "safety": safety,
        "not_measured": story.evaluated.not_measured,
        "limits": limits(story),
        "made": made(story),
    }


_NOTHING = {"name": "Nothing yet", "verdict": "", "text": "no stage has begun."}


def sections(story: Story) -> list[tuple[str, str]]:
    """The id and the name of each."""
    replies = [("replies", "Replies side by side")] if story.asked else []
    return [
        ("short", "In short"),
        ("data", "What was trained on what"),
        ("stages", "How each stage went"),
        *replies,
        ("arms", "Arms compared"),
        ("safety", "Safety and bias"),
        ("limits", "Limits"),
        ("made", "How it was made"),
    ]


def in_short(run: RunStory) -> dict[str, str]:
    """One line on a stage: did its own held-out measure improve?"""
    row = _headline(run.results)
    verdict, text = "", "nothing was measured on held-out data."
    if row is not None:
        verdict, text = improvement(row)
    if not run.finished:
        text += " It is not finished."
    return {"name": run.name, "verdict": verdict, "text": text}


def _headline(results: Sequence[ResultRow]) -> ResultRow | None:
    """The figure by which a stage is told: crossed accuracy, reward, or else the held-out loss."""
    wanted = (
        ("preferences", "accuracy", "crossed"),
        ("held_out", "reward", "all"),
        ("held_out", "loss", "all"),
    )
    for suite, measure, group in wanted:
        for row in results:
            if (row["suite"], row["measure"], row["group"]) == (suite, measure, group):
                return row
    return None


def improvement(row: ResultRow) -> tuple[str, str]:
    """ "better", "worse" or "" and the sentence that says so, plainly."""
    if row["suite"] == "preferences":
        value, low, high = row["value"], row["low"], row["high"]
        told = f"accuracy on held-out crossed pairs {value:.3g} ({low:.3g} to {high:.3g}), "
        if low > CHANCE:
            return "better", told + "above chance, which is 0.5."
        return "worse", told + "no better than chance, which is 0.5. Its scores show nothing yet."
    before, value = row.get("before"), row["value"]
    measure = row["measure"]
    if value is None or before is None:
        return "", f"its held-out {measure} was not measured both before and after."
    told = f"held-out {measure} {before:.4g} before, {value:.4g} after: "
    gained = value - before if better(measure) == "higher" else before - value
    if gained > 0:
        return "better", f"{told}it improved by {gained:.3g}."
    return "worse", f"{told}it did not improve."


CHANCE = 0.5


def run_values(run: RunStory) -> dict[str, Any]:
    """What the template asks of a stage."""
    config = run.config
    adapter = config.get("adapter")
    trains = "all parameters" if adapter is None else f"LoRA of rank {adapter['rank']}"
    if run.record.get("adapters"):
        trains = f"{len(run.record['adapters'])} adapters: {', '.join(run.record['adapters'])}"
    charts = curves(run)
    accuracies = [row for row in run.results if row["suite"] == "preferences" and row.get("n")]
    if accuracies:
        rows = [
            ChartInterval(r["group"], r["value"], r.get("low"), r.get("high")) for r in accuracies
        ]
        title = "Accuracy on held-out pairs; the dashed line is chance"
        charts.append({"title": title, "svg": intervals(title, "accuracy", rows, CHANCE)})
    return {
        "name": run.name,
        "method": (run.record.get("method") or config["recipe"]).rstrip(", "),
        "begins": "the base" if config.get("start") is None else _last(config["start"]),
        "trains": trains,
        "data": list(dict.fromkeys(_shown(str(one["path"])) for one in sources_in(config))),
        "updates": run.updates,
        "finished": run.finished,
        "seconds": sum(run.goodput.get("seconds", {}).values()) or None,
        "verdict": f"{in_short(run)['text'][:1].upper()}{in_short(run)['text'][1:]}",
        "charts": charts,
        "results": [{"before": None, "n": None, "controls": {}, **row} for row in run.results],
        "settings": json.dumps(dict(config), indent=2, ensure_ascii=False),
    }


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _shown(path: str) -> str:
    return path if path.startswith("shipped:") else _last(path)


def sources_in(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every data source of a config, as a group of fields."""
    if isinstance(node, Mapping):
        if {"schema", "path"} <= node.keys() and isinstance(node["path"], str):
            yield node
        node = tuple(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from sources_in(item)


def _origins(cards: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for card in cards.get("data", []):
        found.setdefault(card["origin"], []).append(card["path"])
    return list(found.items())


def base_facts(story: Story) -> list[tuple[str, str]]:
    """The base model, by name and hashes."""
    models = story.cards.get("models", [])
    facts: list[tuple[str, Any]] = []
    for model in models:
        facts += [
            ("Base model", model["public_name"] or model["source"]),
            ("Its licence", model["license"] or "not recorded"),
            ("SHA-256 of its weights", model["weights_sha256"]),
            ("SHA-256 of its tokenizer", model["tokenizer_sha256"]),
        ]
    if not models and story.runs:
        run = story.runs[0]
        base = run.record["base"]
        facts = [
            ("Base model", _last(run.config["model"]["source"])),
            ("SHA-256 of its weights", base.get("weights_sha256") or "not recorded"),
            (
                "SHA-256 of its tokenizer",
                base.get("tokenizer_sha256") or "not recorded",
            ),
        ]
    return facts


def _suites(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    found: dict[str, list[ResultRow]] = {}
    for row in rows:
        found.setdefault(row["suite"], []).append(row)
    return [{"name": name, "rows": own} for name, own in found.items()]


def _whole(row: ResultRow) -> ResultRow:
    return {
        "group": "all",
        "value": None,
        "low": None,
        "high": None,
        "n": None,
        "missing": None,
        "judge": "",
        "against": "",
        **row,
    }


def limits(story: Story) -> list[str]:
    """What the figures of this page do not show, in plain words."""
    found: list[str] = list(ALWAYS)
    if any(row["suite"] == "preferences" for run in story.runs for row in run.results):
        found.append(
            "Accuracies on plain pairs say little: a bag of words, which understands nothing, "
            "reaches most of them, as the writer's hand tells the two replies apart. Crossed pairs "
            "have no such cue: each reply is right as often as wrong. Where a crossed accuracy is "
            "at chance, the scores may not be used to claim anything about that dimension."
        )
    if any("rewards" in run.config for run in story.runs):
        found.append(
            "A policy that gains reward has learnt what is rewarded, which may be a style. Only a "
            "measure from elsewhere, such as people's votes, tells whether its replies are better."
        )
    if any(run.config["model"]["source"] == _TINY for run in story.runs):
        found.insert(0, RANDOM)
    return found


RANDOM = (
    "The base is a random model of a few layers: this run shows that everything works, and nothing "
    "about empathy."
)
ALWAYS = (
    "Held-out data is by the same writers as the training data. A lower loss on it shows that the "
    "model writes more like them, not that it is kinder.",
    "Shipped dialogues are synthetic, written by a language model and reviewed by nobody. They are "
    "too few, and too much of one voice, to support a claim about empathy.",
    "Intervals are 95 % and resample whole statements or conversations. Where none is given, a "
    "figure is one number from one held-out set and one seed.",
    "The methods follow the published descriptions; details that are not public are our "
    "reconstruction. No figure of those papers is claimed here.",
    "A model trained so is no therapist. It must not be what a person in danger is left with.",
)


def made(story: Story) -> list[tuple[str, str]]:
    """Versions, commit, seeds."""
    if not story.runs:
        return []
    record = story.runs[0].record
    seeds = ", ".join(dict.fromkeys(str(run.config["seed"]) for run in story.runs))
    versions = [(name, version) for name, version in record["versions"].items()]
    return [("Commit", record.get("commit") or "not known"), ("Seed", seeds), *versions]

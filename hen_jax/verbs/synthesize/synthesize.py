"""`hen synthesize`: steered conversations written by language models, filtered, with a data card.

The stages, each with a journal of its own in the folder: scenes from a seed; the user's side with
the empathetic branch; the other branch; hard negatives; a judge. A run that was killed asks on from
there and ends with the same bytes.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.data.crossed import parse_crossed
from hen_jax.data.patterns import PATTERNS_FILE, Guides, default_guides, guides_toml, read_guides
from hen_jax.data.steered import SteeredRecord, steered_row
from hen_jax.runs.chats import open_speaker, revision
from hen_jax.synthesis.asking import Ask, journaled
from hen_jax.synthesis.card import card
from hen_jax.synthesis.conversations import (
    Dropped,
    records,
    written_chosen,
    written_hard,
    written_rejected,
)
from hen_jax.synthesis.crossings import level_rows
from hen_jax.synthesis.filters import Filter, over_limits, said_before, sift, unmatched
from hen_jax.synthesis.judging import judged_worse, off_pattern, pattern_rubric
from hen_jax.synthesis.materials import Materials, load_materials
from hen_jax.synthesis.report import crossed_give_aways, give_aways, variety
from hen_jax.synthesis.scenes import Scene, scene_row, scenes
from hen_jax.text.replay import recorded
from hen_jax.verbs.synthesize.settings import Synthesis

SETTINGS, SCENES, CROSSED, DROPPED, REPORT, CARD = (
    "settings.json", "scenes.jsonl", "crossed.jsonl", "dropped.jsonl", "report.json", "README.md",
)  # fmt: skip

MAY_CHANGE, JUDGES = ("length_ratio", "near", "least"), ("judge", "judge_revision")
"""Settings by which nobody writes."""

USER, CHOSEN, REJECTED, HARD, JUDGE = "user", "chosen", "rejected", "hard", "judge"


class Material(NamedTuple):
    """What a synthesis is made from."""

    guides: Guides
    materials: Materials
    scenes: list[Scene]


class _Made(NamedTuple):
    """What all stages made."""

    kept: list[SteeredRecord]
    dropped: list[Dropped]
    counts: dict[str, dict[str, int]]  # by context and stage


def synthesize(asked: Synthesis) -> dict[str, Any]:
    """Asks what was not asked before, writes the pairs that are kept, and prints the card's tables.

    The folder then holds `CONTEXT.jsonl` and `CONTEXT.hard.jsonl` (schema `steered`, with the
    `patterns.toml` they were made by), `crossed.jsonl` (schema `crossed`), `dropped.jsonl`,
    `report.json` and the card, `README.md`.

    Raises:
      InputError: bad input, a folder that holds something else, a model that does not answer (what
        came is kept), or nothing that could be kept.
    """
    require_no_link(asked.out)
    material = _material(asked)
    names = _file_names(asked, material)
    require_ours(*(asked.out / name for name in names))
    _claim(asked, material)
    made = _made(asked, material)
    files = _files(asked, material, made)
    with output_files(*(asked.out / name for name in names)) as staged:
        for path in staged:
            path.write_text(files[path.name], encoding="utf-8")
    report = json.loads(files[REPORT])
    if not made.kept:
        raise InputError(
            f"nothing could be kept of {len(material.scenes)} conversations: "
            f"{asked.out / DROPPED} says why; take another model, or wider filters"
        )
    print(card(report), end="")
    return report


def _material(asked: Synthesis) -> Material:
    guides = default_guides() if asked.patterns is None else read_guides(asked.patterns)
    materials = load_materials(asked.language, asked.materials)
    wanted = asked.wanted(tuple(guides))
    found = scenes(wanted, materials, guides)
    used = {name: guides[name] for name in wanted.contexts}
    for name, guide in used.items():
        pattern_rubric(name, guide, materials)  # refused before anything is asked
    return Material(used, materials, found)


def _claim(asked: Synthesis, material: Material) -> None:
    """Makes the folder this synthesis's, or finds that it is already.

    Filters may change, and a judge may come where there was none: what was written stays.
    """
    writers = (asked.backend, asked.user_backend)
    judge = None if asked.judge is None else revision(asked.judge)
    decisive = asked.decisive() | {
        "revisions": [None if line is None else revision(line) for line in writers],
        "judge_revision": judge,
        "patterns_sha256": text_sha256(guides_toml(material.guides)),
        "materials_sha256": text_sha256(repr(material.materials)),
    }
    path = asked.out / SETTINGS
    if path.exists():
        before = read_json(path)
        if not isinstance(before, dict):
            raise InputError(f"{path} is no settings of a synthesis; give another --out")
        free = {*MAY_CHANGE, *(JUDGES if before.get("judge") is None else ())}
        for key, value in decisive.items():
            if before.get(key) != value and key not in free:
                raise InputError(
                    f"{asked.out} holds a synthesis with other settings ({key} was "
                    f"{before.get(key)!r}, is {value!r}); give another --out, or the settings it "
                    "was started with"
                )
    elif asked.out.exists() and any(asked.out.glob("calls.*.jsonl")):
        raise InputError(f"{asked.out} has calls and no {SETTINGS}; give another --out")
    write_json(path, decisive)


def _made(asked: Synthesis, material: Material) -> _Made:
    guides, materials = material.guides, material.materials
    with _voices(asked) as voices:
        first = written_chosen(material.scenes, guides, materials, voices[USER], voices[CHOSEN])
        other = written_rejected(first.spoken, guides, materials, voices[REJECTED])
        hard = written_hard(first.spoken, materials, voices[HARD])
        pairs = records(first.spoken, other.spoken, guides, hard=False)
        pairs += records(first.spoken, hard.spoken, guides, hard=True)
        filters = _filters(asked, material, voices.get(JUDGE))
        sifted = sift(pairs, filters)
    dropped = [*first.dropped, *other.dropped, *hard.dropped]
    dropped += [Dropped(name, *why) for name, why in sifted.dropped.items()]
    stages = {
        "chosen": [one.scene.context for one in first.spoken],
        "pairs": [one.context for one in pairs if one.fault is None],
        "hard": [one.context for one in pairs if one.fault is not None],
    }
    context_of = {one.id: one.context for one in pairs}
    taken = {name: [context_of[key] for key, why in sifted.dropped.items() if why[0] == name]
             for name, _ in filters}  # fmt: skip
    return _Made(sifted.kept, dropped, _counts(material, stages, taken, sifted.kept))


def _filters(asked: Synthesis, material: Material, judge: Ask | None) -> list[tuple[str, Filter]]:
    guides, materials = material.guides, material.materials
    found = [
        ("limits", over_limits(guides, asked.language)),
        ("length", unmatched(asked.length_ratio)),
        ("repeats", said_before(asked.near)),
    ]
    if judge is not None:
        found += [
            ("pattern", off_pattern(guides, materials, judge, asked.least, asked.seed)),
            ("judge", judged_worse(guides, materials, judge, asked.seed)),
        ]
    return found


def _counts(
    material: Material,
    stages: Mapping[str, Sequence[str]],
    taken: Mapping[str, Sequence[str]],
    kept: Sequence[SteeredRecord],
) -> dict[str, dict[str, int]]:
    """What each stage made and each filter took, by context."""
    found = {}
    for context in material.guides:
        one = {"scenes": sum(scene.context == context for scene in material.scenes)}
        one |= {name: list(made).count(context) for name, made in stages.items()}
        one |= {f"- {name}": list(gone).count(context) for name, gone in taken.items()}
        mine = [record for record in kept if record.context == context]
        one["kept pairs"] = sum(record.fault is None for record in mine)
        one["kept hard"] = sum(record.fault is not None for record in mine)
        found[context] = one
    return found


@contextmanager
def _voices(asked: Synthesis) -> Iterator[dict[str, Ask]]:
    """Who is asked in each stage, each behind its journal."""
    lines = dict.fromkeys((USER, CHOSEN, REJECTED, HARD), asked.backend)
    lines |= {} if asked.user_backend is None else {USER: asked.user_backend}
    lines |= {} if asked.judge is None else {JUDGE: asked.judge}
    opened: dict[tuple[str, bool], Callable] = {}
    with ExitStack() as stack:
        voices = {}
        for name, line in lines.items():
            key = (line, name == JUDGE)
            if key not in opened:
                opened[key] = _speaker(asked, line, judge=name == JUDGE)
            told = _progress(name) if sys.stderr.isatty() else _silent
            path = asked.out / f"calls.{name}.jsonl"
            voices[name] = stack.enter_context(
                journaled(path, opened[key], chunk=asked.batch_size, seed=asked.seed, told=told)
            )
        yield voices


def _speaker(asked: Synthesis, line: str, *, judge: bool) -> Callable:
    speaker, record = open_speaker(line, asked.answering(judge=judge)), asked.record
    if record is None:
        return speaker
    record.parent.mkdir(parents=True, exist_ok=True)
    return lambda seed: recorded(speaker(seed), record)


def _progress(name: str) -> Callable[[int], None]:
    def told(done: int) -> None:
        print(f"\r{name}: {done} replies", end="", file=sys.stderr, flush=True)

    return told


def _silent(done: int) -> None:
    """Nobody watches."""


def _file_names(asked: Synthesis, material: Material) -> list[str]:
    names = [f"{name}{end}" for name in material.guides for end in (".jsonl", ".hard.jsonl")]
    if not asked.hard:
        names = [name for name in names if not name.endswith(".hard.jsonl")]
    return [*names, CROSSED, PATTERNS_FILE, SCENES, DROPPED, REPORT, CARD]


def _files(asked: Synthesis, material: Material, made: _Made) -> dict[str, str]:
    """The text of each file."""
    rows = level_rows(made.kept, material.guides, material.materials)
    crossings = [parse_crossed(row, material.guides) for row in rows]
    report = {
        "settings": asked.decisive(),
        "yield": made.counts,
        "give_aways": give_aways(made.kept),
        "crossed": crossed_give_aways(crossings),
        "variety": variety(made.kept),
    }
    files = {
        CROSSED: _lines(rows),
        PATTERNS_FILE: guides_toml(material.guides),
        SCENES: _lines(map(scene_row, material.scenes)),
        DROPPED: _lines(one._asdict() for one in made.dropped),
        REPORT: json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        CARD: card(report),
    }
    for name in material.guides:
        mine = [one for one in made.kept if one.context == name]
        files[f"{name}.jsonl"] = _lines(steered_row(one) for one in mine if one.fault is None)
        files[f"{name}.hard.jsonl"] = _lines(steered_row(one) for one in mine if one.fault)
    return files


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

"""Do experts hold what a system prompt loses? SmolLM2-135M, held-out conversations, three seeds.

    python studies/experts_effect.py --model models/smollm2-135m --out runs/experts-effect
    python studies/experts_effect.py --out runs/experts-effect --units 1    # exit code 75: more
    python studies/experts_effect.py --out runs/experts-effect --list       # what is there
    python studies/experts_effect.py --model models/tiny --out runs/small --tiny

Groups are dealt by one hash, so that the parts of all runs agree: no expert, shared adapter or
measure was trained on a conversation that is measured. The measure is a preference model of all
four contexts, turn by turn, trained with crossed pairs (`reward:shared`); its control reads replies
alone. The arms: the base, the base under the context's system prompt, the experts, the next
context's expert, and one adapter for all; the last three of each seed. `--also` adds experts gone
on with DPO and of rank 4.

What is done is made of units of about `--seconds`: one that needs longer is stopped as soon as it
has got on, and gone on with by the next. A run and an arm that is done is a JSON file in
`--results`, which is all that the report reads; what has its file is not made again, whatever
became of `--out`.
"""  # fmt: skip

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import STOPPED
from hen_jax.core.files import write_json

REPLIES, LEVELS = "replies.jsonl", "levels.jsonl"
CONTEXTS = ("distress", "career", "learning", "writing")
BFLOAT16 = "--config.execution.compute_dtype=bfloat16"  # of products; on two cores twice as fast
RUNS: dict[str, tuple[str, ...]] = {
    "measure": ("--config=reward:shared", "--config.level=turn", "--config.epochs=1.0"),
    "control": (
        "--config=reward:shared", "--config.level=turn", "--config.epochs=1.0",
        "--config.reads=replies",
    ),
    "experts": ("--config=experts",),
    "shared": ("--config=experts:shared",),
    "rank_4": ("--config=experts", "--config.adapter.rank=4", "--config.adapter.alpha=8.0"),
    "dpo": ("--config=experts:preference",),
}  # fmt: skip
"""What `hen run` is told; the measure and its control are trained once, the others by seed."""


class Arm(NamedTuple):
    """Who answers: by which run's adapters, `{expert}` among them; None: the base."""

    name: str
    run: str | None = None
    settings: Mapping[str, Any] = {}


ARMS = (
    Arm("baseline"),
    Arm("system prompt", None, {"prompted": True}),
    Arm("adapter", "experts"),
    Arm("wrong expert", "experts", {"route": "wrong"}),
    Arm("shared adapter", "shared"),
)
ALSO = (Arm("adapter, rank 4", "rank_4"), Arm("adapter, DPO", "dpo"))


class Task(NamedTuple):
    """A command that makes a path; what it needs comes before it."""

    name: str
    words: Sequence[str]  # of this interpreter
    makes: Path
    run: Path | None = None  # a run's folder: that it ended, `makes` says, as nothing in it does
    result: Path | None = None  # where the same is kept
    journals: Sequence[Path] = ()  # of a command that goes on from them


class Place(NamedTuple):
    """Where everything lies."""

    model: str
    out: Path
    results: Path
    tiny: bool

    def run(self, name: str) -> Path:
        """A run's folder."""
        return self.out / "runs" / name

    def export(self, name: str) -> Path:
        """Of a run: one model or adapter, or a folder of each expert."""
        return self.out / "exports" / name


def main() -> int:
    """Does what is missing, as far as it may; reports when all is there."""
    given = _arguments()
    place = Place(given.model, given.out, given.results, given.tiny)
    arms = [*ARMS, *(ALSO if given.also else ())]
    if given.measure:
        measure_arm(place, arms, given.measure)
        return 0
    if given.list:
        for task in tasks(place, arms, given.seeds):
            print(f"{'done' if task.makes.exists() else 'to do':<6} {task.name}")
        return 0
    left = given.units
    for task in tasks(place, arms, given.seeds):
        while not task.makes.exists():
            if left == 0:
                return STOPPED
            do(task, given.seconds)
            left -= 1
    print(report(place, arms, given.seeds))
    return 0


def do(task: Task, seconds: float) -> None:
    """One unit: the command, which is asked to stop after so long and then goes on next time.

    Raises:
      SystemExit: it failed.
    """
    print(f"{task.name} ...", flush=True)
    began = time.monotonic()
    before = kept(task)
    with subprocess.Popen([sys.executable, *task.words]) as process:
        while (code := process.poll()) is None:
            time.sleep(0.5)
            # Stopped without anything kept, the next unit would do the same again, for ever.
            if time.monotonic() - began > seconds and kept(task) != before:
                process.send_signal(signal.SIGTERM)
                code = process.wait()
                break
    if code not in (0, STOPPED, -signal.SIGTERM):
        raise SystemExit(f"{task.name} ended with exit code {code}: {' '.join(task.words)}")
    print(f"{task.name}: {time.monotonic() - began:.0f} s, exit code {code}", flush=True)
    if code == 0 and task.run is not None and task.result is not None:
        for path in (task.result, task.makes):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, outcome(task.words, task.run))


def kept(task: Task) -> list[tuple[str, int]]:
    """What a later unit would not have to do again: checkpoints of a run, replies and levels."""
    paths = task.journals if task.run is None else sorted((task.run / "checkpoints").glob("*"))
    return [(path.name, path.stat().st_size) for path in paths if path.exists()]


def outcome(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"command": list(words[2:]), "last": told[-1]}
    if (folder / "reward.json").exists():
        found["accuracy"] = json.loads((folder / "reward.json").read_text())["accuracy"]
    return found


def tasks(place: Place, arms: Sequence[Arm], seeds: int) -> Iterator[Task]:
    """All that is to be done, in order: an arm whose file is there needs nothing before it."""
    wanted = [(arm, key) for arm in arms for key in keys_of(arm, seeds)]
    missing = [(arm, key) for arm, key in wanted if not result_of(place, key).exists()]
    if missing:
        for name in ("measure", "control"):
            yield from trained(place, name, name)
    # Seed by seed, so that the first whole comparison is there early.
    for arm, key in sorted(missing, key=lambda one: _seed(one[1])):
        if arm.run is not None:
            yield from trained(place, arm.run, f"{arm.run}-{_seed(key)}")
        words = [__file__, "--measure", key, "--model", place.model, "--out", str(place.out)]
        words += ["--results", str(place.results), *(["--tiny"] if place.tiny else [])]
        words += ["--also"] if arm in ALSO else []
        journals = [place.out / name for name in (REPLIES, LEVELS)]
        yield Task(f"arm {key}", words, result_of(place, key), journals=journals)


def trained(place: Place, name: str, key: str) -> Iterator[Task]:
    """A run and its export."""
    run, out = place.run(key), place.export(key)
    words = ["-m", "hen_jax", "run", *RUNS[name], BFLOAT16, f"--config.seed={_seed(key)}"]
    words += [f"--config.model.source={place.model}", "--config.loop.checkpoint_every=5"]
    words += ["--config.loop.trackers=()", f"--workdir={run}"]
    if name == "dpo":
        yield from trained(place, "experts", f"experts-{_seed(key)}")
        words.append(f"--config.start={place.run(f'experts-{_seed(key)}')}")
    if place.tiny:
        words.append("--config.epochs=0.05")
    ended = run.with_suffix(".json")
    yield Task(f"run {key}", words, ended, run, place.results / f"run-{key}.json")
    export = ["-m", "hen_jax", "export", "--run", str(run), "--out", str(out)]
    if name in ("measure", "control"):
        yield Task(f"export {key}", [*export, "--format", "hf"], out / "config.json")
    elif name == "shared":
        one = ["--expert", "shared", "--format", "peft"]
        yield Task(f"export {key}", [*export, *one], out / "adapter_config.json")
    else:
        last = out / CONTEXTS[-1] / "adapter_config.json"
        yield Task(f"export {key}", [*export, "--format", "peft", "--all-experts"], last)


def keys_of(arm: Arm, seeds: int) -> list[str]:
    """An arm's name, of each seed where one decides what it says."""
    return [arm.name] if arm.run is None else [f"{arm.name}, seed {n}" for n in range(seeds)]


def result_of(place: Place, key: str) -> Path:
    return place.results / f"arm-{key.replace(', ', '-').replace(' ', '-')}.json"


def _seed(key: str) -> int:
    """The number at the end of a name; 0 where there is none."""
    digits = key[len(key.rstrip("0123456789")) :]
    return int(digits or 0)


def measurement(place: Place, arm: Arm, key: str) -> dict[str, Any]:
    """What `hen evaluate --suite experts` would read, of one arm."""
    adapter = None
    if arm.run is not None:
        folder = place.export(f"{arm.run}-{_seed(key)}")
        adapter = str(folder if arm.run == "shared" else folder / "{expert}")
    few: dict[str, Any] = {"limit": 1, "turns": 2, "max_new_tokens": 8} if place.tiny else {}
    return {
        "backend": f"model:{place.model}",
        "conversations": [
            {"schema": "steered", "path": f"shipped:eea/{context}.jsonl"} for context in CONTEXTS
        ],
        "arms": [{"name": key, "adapter": adapter, **arm.settings}],
        "baseline": key,
        "measures": [
            {
                "name": "preference",
                "model": str(place.export("measure")),
                "replies": str(place.export("control")),
            }
        ],
        "max_new_tokens": 128,
        **few,
    }


def measure_arm(place: Place, arms: Sequence[Arm], key: str) -> None:
    """Writes what an arm said is worth, reply by reply; journals keep what an earlier start did."""
    import numpy as np

    from hen_jax.core.journal import open_journal
    from hen_jax.runs.settings import settings
    from hen_jax.verbs.evaluate.experts_arms import answers_of, scripts_of
    from hen_jax.verbs.evaluate.experts_levels import levels_of
    from hen_jax.verbs.evaluate.experts_settings import Measurement

    (arm,) = (arm for arm in arms if key == arm.name or key.startswith(f"{arm.name}, seed "))
    asked = settings(Measurement, measurement(place, arm, key), key)
    scripts = scripts_of(asked)
    turns = max(len(script.users) for script in scripts)
    with open_journal(place.out / REPLIES, "replies of experts") as journal:
        answers = answers_of(asked.arms[0], asked, scripts, journal)
    with open_journal(place.out / LEVELS, "levels of experts") as journal:
        levels = levels_of(asked.measures[0], scripts, {key: answers}, turns, journal)

    def listed(table: Any) -> list[list[float | None]]:
        return [[None if np.isnan(x) else round(x, 4) for x in row] for row in table.tolist()]

    assert levels.alone is not None
    assert levels.chosen is not None
    words = [len(text.split()) for text in answers.said.values()]
    write_json(
        result_of(place, key),
        {
            "arm": arm.name,
            "seed": None if arm.run is None else _seed(key),
            "conversations": [script.id for script in scripts],
            "contexts": [script.context for script in scripts],
            "words_a_reply": round(float(np.mean(words)), 1),
            "missing": levels.missing[key],
            "crossed": levels.crossed,
            "levels": listed(levels.arms[key]),
            "alone": listed(levels.alone[key]),
            "chosen": listed(levels.chosen),
        },
    )


def report(place: Place, arms: Sequence[Arm], seeds: int) -> str:
    """The figures from the arms' files: of the mean over seeds, and seed by seed.

    Raises:
      SystemExit: two files that are not of one measure, or not of the same conversations.
    """
    import numpy as np

    from hen_jax.evaluation.expert_levels import Wanted
    from hen_jax.evaluation.expert_report import BootstrapDraws, Levels, measure_report
    from hen_jax.verbs.evaluate.experts_measured import lines_of

    found = {
        key: json.loads(result_of(place, key).read_text())
        for arm in arms
        for key in keys_of(arm, seeds)
    }
    first = found[ARMS[0].name]
    for key, one in found.items():
        for name in ("conversations", "chosen", "crossed"):
            if one[name] != first[name]:
                raise SystemExit(
                    f"{result_of(place, key)}: another {name} than {result_of(place, ARMS[0].name)}"
                    "; delete the older one"
                )

    def table(key: str, name: str) -> np.ndarray:
        return np.asarray(found[key][name], float)

    def mean(name: str) -> dict[str, np.ndarray]:
        return {
            arm.name: np.mean([table(key, name) for key in keys_of(arm, seeds)], axis=0)
            for arm in arms
        }

    missing = {arm.name: sum(found[key]["missing"] for key in keys_of(arm, seeds)) for arm in arms}
    groups, contexts = first["conversations"], first["contexts"]
    chosen = table(ARMS[0].name, "chosen")
    wanted = Wanted(groups, contexts, np.zeros(len(groups)))

    def reported(levels: Mapping[str, np.ndarray], alone: Mapping[str, np.ndarray]) -> dict:
        given = Levels(levels, alone, first["crossed"], missing, "preference", chosen)
        return measure_report(given, wanted, ARMS[0].name, BootstrapDraws(), "chosen")

    whole = reported(mean("levels"), mean("alone"))
    each = {key: table(key, "levels") for key in found}
    apart = reported(each, {key: table(key, "alone") for key in found})
    turns = (~np.isnan(chosen)).sum(axis=0).tolist()
    counts = {context: contexts.count(context) for context in dict.fromkeys(contexts)}
    lines = lines_of({"conversations": counts, "turns": turns, "measures": {"preference": whole}})
    lines += ["", "Gap reduction (%), seed by seed:", ""]
    for key, own in apart["gaps"].items():
        cells = [f"{name} {one['value']:.0f}" for name, one in own["contexts"].items()]
        lines.append(f"- {key}: {own['reduction']['value']:.0f} ({', '.join(cells)})")
    words = [f"{key} {one['words_a_reply']:.0f}" for key, one in found.items()]
    lines += ["", f"Words a reply: {', '.join(words)}."]
    by_seed = {key: own["reduction"] for key, own in apart["gaps"].items()}
    write_json(place.results / "results.json", {"measure": whole, "by_seed": by_seed})
    (place.results / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--model", default="models/smollm2-135m", help="a Hugging Face folder")
    flags.add_argument("--out", required=True, type=Path, help="runs, exports and journals")
    flags.add_argument("--results", type=Path, help="a JSON for each run and arm that is done")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--units", type=int, default=-1, help="at most so many; -1: all")
    flags.add_argument("--seconds", type=float, default=280.0, help="a unit's, at most")
    flags.add_argument("--also", action="store_true", help="DPO and rank 4, too")
    flags.add_argument("--tiny", action="store_true", help="hardly any update, few replies")
    flags.add_argument("--list", action="store_true", help="tell what is done only")
    flags.add_argument("--measure", help=argparse.SUPPRESS)
    given = flags.parse_args()
    if given.results is None:
        own = Path(os.path.relpath(Path(__file__).parent / "results/experts"))
        given.results = given.out / "results" if given.tiny else own
    return given


if __name__ == "__main__":
    sys.exit(main())

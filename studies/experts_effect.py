"""Do experts hold what a system prompt loses? Runs, exports and measurements, seed by seed.

    python studies/experts_effect.py --out runs/experts-effect --dry-run  # only the commands
    python studies/experts_effect.py --out runs/experts-effect            # hours; resumable
    python studies/experts_effect.py --out runs/experts-effect --tiny     # random models

For each seed, of SmolLM2-135M on the shipped steered conversations: experts by SFT, the same gone
on with DPO, experts of rank 4, and the shared adapter; a preference model of each context and its
control on replies alone; a rating model of SENSE-7. Then the suite `experts` on conversations
that none of them was trained on (groups are dealt by one hash, so that the parts of all agree).
Commands whose folder is there are passed over. At the end, of each figure the mean over the seeds.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

CONTEXTS = ("distress", "career", "learning", "writing")
ARMS = ("sft", "dpo", "rank_4", "shared")


def main() -> None:
    """The command."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", required=True, type=Path)
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--dry-run", action="store_true", help="print the commands only")
    flags.add_argument("--tiny", action="store_true", help="random models and a few updates")
    given = flags.parse_args()
    found = []
    for seed in range(given.seeds):
        folder = given.out / f"seed-{seed}"
        for words, made in commands(folder, seed, given.tiny):
            print(shlex.join(["hen", *words]), flush=True)
            if not given.dry_run and not made.exists():
                subprocess.run([sys.executable, "-m", "hen_jax", *words], check=True)
        if not given.dry_run:
            found.append(json.loads((folder / "measured/experts/results.json").read_text()))
    if found:
        print("\n".join(summary(found)))


def commands(folder: Path, seed: int, tiny: bool) -> list[tuple[list[str], Path]]:
    """The words of each command, and the path that is there when it is done."""
    small = ["--config.model.source=tiny", "--config.epochs=0.1"] if tiny else []
    same = [f"--config.seed={seed}", *small]
    runs = {
        "sft": ["--config=experts"],
        "shared": ["--config=experts:shared"],
        "rank_4": ["--config=experts", "--config.adapter.rank=4", "--config.adapter.alpha=8.0"],
        "dpo": ["--config=experts:preference", f"--config.start={folder / 'runs/sft'}"],
        "rating": ["--config=regression"],
    }
    for context in CONTEXTS:
        reward = [f"--config=reward:{context}", "--config.level=turn"]
        runs[f"reward-{context}"] = reward
        runs[f"replies-{context}"] = [*reward, "--config.reads=replies"]
    found = []
    for name, words in runs.items():
        run, out = folder / "runs" / name, folder / "exports" / name
        found.append((["run", *words, *same, f"--workdir={run}"], run / "goodput.json"))
        export = ["export", "--run", str(run), "--out", str(out)]
        if name in ARMS and name != "shared":
            export += ["--format", "peft", "--all-experts"]
            found.append((export, out / CONTEXTS[-1]))
        else:
            one = ["--expert", "shared", "--format", "peft"] if name == "shared" else []
            found.append(([*export, *(one or ["--format", "hf"])], out))
    measured = folder / "measured.json"
    evaluate = ["evaluate", "--suite", "experts", "--arm", "baseline=references"]
    evaluate += ["--option", f"experts={measured}", "--out", str(folder / "measured")]
    folder.mkdir(parents=True, exist_ok=True)
    measured.write_text(json.dumps(measurement(folder, seed, tiny), indent=2))
    return [*found, (evaluate, folder / "measured/results.json")]


def measurement(folder: Path, seed: int, tiny: bool) -> dict[str, Any]:
    """The file that the suite reads."""
    exports = folder / "exports"
    experts = {name: str(exports / name / "{expert}") for name in ARMS if name != "shared"}
    arms = [
        {"name": "baseline"},
        {"name": "system prompt", "prompted": True},
        *({"name": f"adapter, {name}", "adapter": path} for name, path in experts.items()),
        {"name": "wrong expert", "adapter": experts["sft"], "route": "wrong"},
        {"name": "shared adapter", "adapter": str(exports / "shared")},
    ]
    paths = [exports / f"{name}-{{context}}" for name in ("reward", "replies")]
    measures = [
        {"name": "preference", "model": str(paths[0]), "replies": str(paths[1])},
        {"name": "generic", "kind": "rating", "model": str(exports / "rating")},
    ]
    base = "tiny" if tiny else "smollm2-135m"
    few: dict[str, Any] = {"limit": 1, "turns": 2, "max_new_tokens": 8} if tiny else {}
    return {
        "backend": f"model:models/{base}",
        "conversations": [
            {"schema": "steered", "path": f"shipped:eea/{context}.jsonl"} for context in CONTEXTS
        ],
        "arms": arms,
        "measures": measures,
        "seed": seed,
        **few,
    }


def summary(found: list[dict[str, Any]]) -> list[str]:
    """A line for each measure and arm: the mean over the seeds, and their least and greatest."""
    lines = []
    for measure, report in found[0]["measures"].items():
        lines += [f"## {measure}", report["claim"]]
        for arm in report["gaps"]:
            several = [one["measures"][measure] for one in found]
            reduced = [one["gaps"][arm]["reduction"]["value"] for one in several]
            late = [one["closeness"][arm]["late"]["value"] for one in several]
            cells = f"gap reduction {_spread(reduced)} %, late closeness kept {_spread(late)}"
            lines.append(f"{arm}: {cells}")
    return lines


def _spread(values: list[float | None]) -> str:
    there = np.asarray([value for value in values if value is not None])
    if not len(there):
        return "none"
    return f"{there.mean():.3g} ({there.min():.3g} to {there.max():.3g})"


if __name__ == "__main__":
    main()

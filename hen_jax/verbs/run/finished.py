"""What a finished run tells: that it is done, where its files are, and what to do with them."""

import shlex
from pathlib import Path

from hen_jax.core.files import RECORD, read_json
from hen_jax.runs.routing import FOLDER as ROUTER
from hen_jax.training.checkpoints import saved_steps
from hen_jax.training.processes import is_primary


def say_finished(workdir: Path) -> None:
    """Prints `closing_words`, once among several processes."""
    if is_primary():
        print(closing_words(workdir), flush=True)


def closing_words(workdir: Path) -> str:
    """How a finished run in `workdir` is told: its updates, its files, the next commands."""
    record, done = read_json(workdir / RECORD), saved_steps(workdir / "checkpoints")[0]
    if (workdir / ROUTER / RECORD).exists():
        words = ["hen", "route", "--router", workdir / ROUTER, "--prompt", "My scooter broke down."]
        return f"Finished after {done} updates. Next:\n  {shlex.join(map(str, words))}"
    lora = record["config"].get("adapter") is not None
    format_ = "peft" if lora else "hf"
    expert = next(iter(record.get("adapters", {})), None)  # of several the first, as an example
    which = [] if expert is None else ["--expert", expert]
    out = workdir / "export" / (expert or format_)
    model = ["--model", record["base"]["folder"], "--adapter", out] if lora else ["--model", out]
    export = ["hen", "export", "--run", workdir, *which, "--format", format_, "--out", out]
    use = ["hen", "generate", *model, "--prompt", "My scooter broke down in the rain."]
    if record["base"]["model"].get("score_head"):
        rates = record["base"]["model"].get("score_labels", ["score"]) != ["score"]
        file, schema = ("chats.jsonl", "messages") if rates else ("pairs.jsonl", "preference")
        data = ["--input", file, "--schema", schema, "--out", "scores.jsonl"]
        use = ["hen", "score", *model, *data]
    lines = [
        f"Finished after {done} updates. In {workdir}: checkpoints,"
        " metrics.jsonl, tensorboard, goodput.json. Next:",
        f"  {shlex.join(map(str, export))}",
        f"  {shlex.join(map(str, use))}",
    ]
    return "\n".join(lines)

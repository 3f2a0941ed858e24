"""The whole of hen_jax's main job in one run: SFT, replies before and after, exports, a summary."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from hen_jax.adapters.lora import merge_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, staged_file, write_json
from hen_jax.core.types import Tree
from hen_jax.data.examples import Document
from hen_jax.recipes import sft
from hen_jax.recipes.sft import SftSettings
from hen_jax.runs.card import HeldOut
from hen_jax.runs.export.folders import EXPORTS, describe_export, export_trained
from hen_jax.runs.export.trained import Exported, open_trained
from hen_jax.runs.replies import greedy_chat, held_out_prompts, questions
from hen_jax.runs.stage import Job

BEFORE, AFTER, SUMMARY = "replies_before.json", "replies_after.json", "summary.md"


def check(settings: SftSettings, mesh: Mesh) -> None:
    """Raises `InputError` among several processes, and as supervised fine-tuning does."""
    if jax.process_count() > 1:
        raise InputError("the quickstart is for one process; run sft on several")
    sft.STAGE.check(settings, mesh)


def before(job: Job) -> None:
    """The replies of the base to held-out prompts; a second run has them."""
    if not (job.workdir / BEFORE).exists():
        asked = held_out_prompts(job.settings.sources)
        _write_replies(job, asked, job.model.base, job.workdir / BEFORE)


def after(job: Job) -> None:
    """The replies of what was learnt, the exports, and what was made; once."""
    workdir = job.workdir
    if (workdir / SUMMARY).exists():
        print(f"All is done: {workdir / SUMMARY} says what was made.\n")
        print((workdir / SUMMARY).read_text(encoding="utf-8"))
        return
    trained = open_trained(workdir)
    learnt = trained.params
    if trained.lora is not None:
        learnt = merge_adapter(trained.model.base, trained.params, trained.lora.scale)
    asked = held_out_prompts(job.settings.sources)
    _write_replies(job, asked, learnt, workdir / AFTER)
    exports = [export_trained(trained, workdir / EXPORTS / "hf", "hf")]
    if trained.lora is not None:
        exports.append(export_trained(trained, workdir / EXPORTS / "peft", "peft"))
    text = summary(workdir, asked, exports, trained.held_out)
    with staged_file(workdir / SUMMARY) as staged:
        staged.write_text(text, encoding="utf-8")
    print(text)


def _write_replies(job: Job, asked: Sequence[Document], params: Tree, path: Path) -> None:
    chat = greedy_chat(job.model.config, job.tokenizer)(params)
    write_json(path, [reply.text for reply in chat(questions(asked))])


def summary(
    workdir: Path, asked: Sequence[Document], exports: Sequence[Exported], held_out: HeldOut | None
) -> str:
    """What was learnt, said and written, as Markdown."""
    loss = held_out or HeldOut(math.nan, math.nan)
    lines = [
        "# What this run made",
        "",
        f"Held-out loss (nats per assistant token): {loss.before:.3f} before, {loss.after:.3f} "
        f"after, {100 * (1 - loss.after / loss.before):.1f} % lower.",
        "",
        "## Replies to held-out prompts, before and after",
        "",
    ]
    before, after = read_json(workdir / BEFORE), read_json(workdir / AFTER)
    for document, then, now in zip(asked, before, after, strict=True):
        question = document.conversation.messages[-2].content
        lines += [f"**{document.id}** {question}", ""]
        lines += [f"- before: {_line(then)}", f"- after: {_line(now)}", ""]
    lines += ["## Exports", "", *(f"- {describe_export(exported)}" for exported in exports), ""]
    lines += ["## Files", "", *(f"- {path}" for path in _written(workdir)), ""]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def _written(workdir: Path) -> list[str]:
    """Every file of the work directory, its lock aside; a checkpoint's many parts count as one."""
    files = [path for path in workdir.rglob("[!.]*") if path.is_file()]
    saved = workdir / "checkpoints"
    found = {path for path in files if saved not in path.parents} | {workdir / SUMMARY}
    return [str(path) for path in sorted(found | set(saved.iterdir()))]


STAGE = sft.STAGE._replace(check=check, before=before, after=after)

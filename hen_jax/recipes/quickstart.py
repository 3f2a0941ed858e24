"""The whole of hen_jax's main job in one run: train, compare replies, export, say what was made."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hen_jax.adapters.lora import merge_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, staged_file, write_json
from hen_jax.core.types import Tree
from hen_jax.data.examples import Document
from hen_jax.models.config import Execution
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.recipes.export import Exported, describe, export_trained, open_trained
from hen_jax.recipes.sft import Session, SftSettings, fit, open_session
from hen_jax.runs.sources import documents
from hen_jax.sampling.generate import Generating, Weights, generate, lay_out, pad_prompts
from hen_jax.sampling.logits import Sampling
from hen_jax.text.chat import render_prompt, stop_ids
from hen_jax.training.metrics import read_metrics

PROMPTS = 6
NEW_TOKENS = 64
BEFORE, AFTER, SUMMARY = "replies_before.json", "replies_after.json", "summary.md"


class Loss(NamedTuple):
    """Cross-entropy of held-out assistant tokens, nats per token."""

    before: float
    after: float


def run(settings: SftSettings, workdir: Path) -> None:
    """Trains, shows replies of held-out prompts before and after, exports, and sums up.

    A second run goes on where the first stopped, or says that all is done.

    Raises:
      InputError: among several processes; also as `open_session`.
    """
    if jax.process_count() > 1:
        raise InputError("the quickstart is for one process; run configs/sft.py on several")
    session = open_session(settings, workdir)
    if (workdir / SUMMARY).exists():
        print(f"All is done: {workdir / SUMMARY} says what was made.\n")
        print((workdir / SUMMARY).read_text(encoding="utf-8"))
        return
    asked = held_out_prompts(settings)
    if not (workdir / BEFORE).exists():
        write_json(workdir / BEFORE, replies(session, session.model.base, asked))
    fit(session, workdir)
    trained = open_trained(workdir)
    learnt = trained.params
    if trained.lora is not None:
        learnt = merge_adapter(trained.model.base, trained.params, trained.lora.scale)
    write_json(workdir / AFTER, replies(session, learnt, asked))
    exports = [export_trained(trained, workdir / "export" / "hf", "hf")]
    if trained.lora is not None:
        exports.append(export_trained(trained, workdir / "export" / "peft", "peft"))
    text = summary(workdir, asked, exports)
    with staged_file(workdir / SUMMARY) as staged:
        staged.write_text(text, encoding="utf-8")
    print(text)


def held_out_prompts(settings: SftSettings) -> list[Document]:
    """`PROMPTS` documents of the test part, spread evenly over it; no run trains on them."""
    test = documents(settings.sources).test
    count = min(PROMPTS, len(test))
    return [test[index * len(test) // count] for index in range(count)]


def replies(session: Session, params: Tree, asked: Sequence[Document]) -> list[str]:
    """The greedy reply of a model with all-in-one `params` to each document's last turn."""
    words = session.words
    stops = stop_ids(*words)
    rows = [
        render_prompt(document.conversation.messages[:-1], *words).tolist() for document in asked
    ]
    structure = split(abstract(session.model.config, execution=Execution(remat="none"))).graphdef
    weights = jax.jit(partial(_laid_out, structure))(jax.tree.map(jnp.asarray, params))
    made = Generating(NEW_TOKENS, stops, sampling=Sampling(temperature=0.0))
    out = jax.jit(generate, static_argnames="settings")(
        weights, pad_prompts(rows), jax.random.key(0), made
    )
    tokens, lengths = jax.device_get((out.tokens, out.lengths))
    tokens = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
    return words.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def held_out_loss(workdir: Path) -> Loss:
    """The first and the last evaluation of a run."""
    losses = [line["loss"] for line in read_metrics(workdir) if line["kind"] == "eval"]
    return Loss(*(math.nan if loss is None else float(loss) for loss in (losses[0], losses[-1])))


def summary(workdir: Path, asked: Sequence[Document], exports: Sequence[Exported]) -> str:
    """What was learnt, said and written, as Markdown."""
    loss = held_out_loss(workdir)
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
    lines += ["## Exports", "", *(f"- {describe(exported)}" for exported in exports), ""]
    lines += ["## Files", "", *(f"- {path}" for path in _written(workdir)), ""]
    return "\n".join(lines)


def _laid_out(structure, params: Tree) -> Weights:
    return lay_out(merge(structure, params))


def _line(text: str) -> str:
    return " ".join(text.split())


def _written(workdir: Path) -> list[str]:
    """Every file of the work directory; a checkpoint's many parts count as one."""
    files = [path for path in workdir.rglob("*") if path.is_file()]
    saved = workdir / "checkpoints"
    found = {path for path in files if saved not in path.parents} | {workdir / SUMMARY}
    return [str(path) for path in sorted(found | set(saved.iterdir()))]

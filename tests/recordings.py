"""Recorded replies for the verbs that ask a model: who answers is a script, and no model is run."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from scripted_writers import writer

from hen_jax.text.conversation import Message, Reply, message_row
from hen_jax.text.replay import recorded

SAID = "said"
"""The folder of all recordings, and of what is asked, in the home of a trial."""

GENERATE = ("generate", "--input={home}/said/prompts.jsonl", "--backend=replay:{home}/said/g.jsonl")
JUDGE = (
    "judge", "--input={home}/said/items.jsonl", "--rubric=general", "--nonce-seed=1",
    "--backend=replay:{home}/said/j.jsonl", "--probes=2",
)  # fmt: skip
EVALUATE = (
    "evaluate", "--arm=one=replay:{home}/said/e.jsonl", "--arm=two=replay:{home}/said/f.jsonl",
    "--suite=high_context", "--suite=overlap", "--limit=1", "--draws=50",
    "--data=shipped:hed/hed.en.jsonl",
)  # fmt: skip
SYNTHESIZE = (
    "synthesize", "--backend=replay:{home}/said/s.jsonl", "--contexts", "distress", "writing",
    "--each=4", "--turns", "2", "2", "--batch-size=3", "--seed=1",
)  # fmt: skip
"""What is typed, less `--out`."""

TIMED = (".hen_written.json", "values.jsonl")
"""What these verbs write that differs each time: what stood there before, and when it began."""

MARKED = re.compile(r"<<<([0-9a-f]{12})\n")


def record_all(home: Path) -> None:
    """Writes what the verbs above are asked, and what they are told."""
    folder = home / SAID
    folder.mkdir()
    prompts = [f"Day {day} was bad. What now?" for day in range(70)]
    _write(folder / "prompts.jsonl", ({"prompt": one} for one in prompts))
    recorded(_script(0), folder / "g.jsonl")([[Message("user", one)] for one in prompts])
    replies = {"cold": "No.", "mild": "I see. Go on.", "warm": "I am with you, take your time."}
    items = ({"id": f"{n}", "prompt": f"Day {n} was bad.", "replies": replies} for n in range(4))
    _write(folder / "items.jsonl", items)
    _record_evaluation(folder)
    with ExitStack() as stack, (folder / "log").open("w") as log:
        stack.enter_context(redirect_stdout(log))
        _record_judge(home)
        _record_synthesis(home)


def _record_evaluation(folder: Path) -> None:
    from hen_jax.runs.evaluated import read_arm_items  # with jax

    items = read_arm_items(("shipped:hed/hed.en.jsonl",), "hed", limit=1)
    for name, salt in (("e", 1), ("f", 2)):
        recorded(_script(salt), folder / f"{name}.jsonl")([one.prompt for one in items])


def _record_judge(home: Path) -> None:
    from hen_jax.verbs.judge import judge as verb
    from hen_jax.verbs.judge.settings import Judging

    folder = home / SAID
    given = {"input": folder / "items.jsonl", "rubric": "general", "nonce_seed": 1, "probes": 2}
    with _answered_by(verb, lambda seed: _script(3)):
        out = {"out": folder / "judged", "record": folder / "j.jsonl"}
        verb.judge(Judging(**given, **out, backend="model:scripted"))


def _record_synthesis(home: Path) -> None:
    from hen_jax.verbs.synthesize import synthesize as verb
    from hen_jax.verbs.synthesize.settings import Synthesis

    given = {"each": 4, "turns": (2, 2), "batch_size": 3, "seed": 1}
    with _answered_by(verb, writer()):
        out = {"out": home / SAID / "written", "record": home / SAID / "s.jsonl"}
        contexts = ("distress", "writing")
        verb.synthesize(Synthesis(**given, **out, contexts=contexts, backend="model:scripted"))


@contextmanager
def _answered_by(verb: Any, speaker: Callable[[int], Any]) -> Iterator[None]:
    with (
        mock.patch.object(verb, "open_speaker", return_value=speaker),
        mock.patch.object(verb, "revision", return_value="scripted"),
    ):
        yield


def _script(salt: int) -> Callable[[Sequence[Sequence[Message]]], list[Reply]]:
    """Replies that depend on what is asked alone: a score where marks ask for one, else a text."""

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        return [_said(json.dumps(list(map(message_row, one))), salt) for one in asked]

    return chat


def _said(asked: str, salt: int) -> Reply:
    number = sum(map(ord, asked)) + salt
    is_judged = MARKED.search(json.loads(asked)[-1]["content"]) is not None
    texts = ("That sounds hard.", "You sound tired. What helped before?", "I see.", "Tell me more!")
    return Reply(json.dumps({"score": 1 + number % 5}) if is_judged else texts[number % 4], 5)


def _write(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

"""The arms of an evaluation: `NAME=MODEL[:ADAPTER]`, and how each is asked.

Beside folders an arm may be any back-end of `runs.chats` (`endpoint:URL#MODEL`, `replay:FILE`), or
`references`: the replies that the data itself gives.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Item, NotMeasuredError
from hen_jax.io.endpoint import Endpoint
from hen_jax.runs.chats import Answering, Speaker, back_end, open_speaker, revision
from hen_jax.runs.likelihood import Likelihood, endpoint_likelihood, open_likelihood
from hen_jax.text.conversation import Chat, Message, Reply

REFERENCES = "references"
_NAME = re.compile(r"[\w.+-]{1,40}")


class Arm(NamedTuple):
    """Who is evaluated, under which name."""

    name: str
    line: str  # a back-end, or `REFERENCES`
    adapter: Path | None = None

    @property
    def kind(self) -> str:
        """`model`, `endpoint`, `replay` or `references`."""
        return REFERENCES if self.line == REFERENCES else back_end(self.line).kind

    @property
    def told(self) -> str:
        """Who it is, in a line."""
        return self.line if self.adapter is None else f"{self.line} + {self.adapter}"


def read_arms(given: Sequence[str]) -> list[Arm]:
    """The arms of the command line, in their order; the first is what others are compared with.

    Raises:
      InputError: no arm, one that is none, or two of one name.
    """
    arms = [_arm(text) for text in given]
    names = [arm.name for arm in arms]
    if not arms:
        raise InputError("no arm; give --arm NAME=MODEL[:ADAPTER], once or more")
    if len(set(names)) < len(names):
        raise InputError(f"--arm: two arms of one name among {', '.join(names)}")
    return arms


def _arm(text: str) -> Arm:
    name, equals, given = text.partition("=")
    if not (equals and given and _NAME.fullmatch(name)):
        raise InputError(
            f"--arm {text!r}; give NAME=MODEL[:ADAPTER], NAME=endpoint:URL#MODEL, "
            "NAME=replay:FILE or NAME=references"
        )
    if given == REFERENCES:
        return Arm(name, REFERENCES)
    if given.partition(":")[0] in ("endpoint", "replay"):
        back_end(given)
        return Arm(name, given)
    folder, adapter = model_and_adapter(given.removeprefix("model:"))
    for path in (folder, adapter):
        if path is not None and (path / "checkpoints").is_dir():
            raise InputError(f"--arm {name}: {path} is a run; give what `hen export` makes of it")
        if path is not None and not path.is_dir():
            raise InputError(f"--arm {name}: {path}: no such folder")
    return Arm(name, f"model:{folder}", adapter)


def model_and_adapter(given: str) -> tuple[Path, Path | None]:
    """A model's folder and an adapter's; a name with a colon that is a folder is a model."""
    folder, colon, adapter = given.rpartition(":")
    if Path(given).is_dir() or not colon:
        return Path(given), None
    return Path(folder), Path(adapter)


def arm_revision(arm: Arm) -> str:
    """What tells one state of an arm from another, as `runs.chats.revision`."""
    return "" if arm.line == REFERENCES else revision(arm.line, arm.adapter)


def arm_speaker(arm: Arm, answering: Answering, items: Sequence[Item]) -> Speaker:
    """Who answers for it. Raises `InputError` as `runs.chats.open_speaker`."""
    if arm.line == REFERENCES:
        return _references({item.prompt: item.reference for item in items})
    return open_speaker(arm.line, answering)


def arm_likelihood(arm: Arm, answering: Answering, tokenizer: Path | None) -> Likelihood:
    """The log-probabilities of replies under it.

    Raises:
      NotMeasuredError: it has none: a recording, or an endpoint without `tokenizer`.
    """
    if arm.kind == "model":
        return open_likelihood(Path(back_end(arm.line).where), arm.adapter, answering.dtype)
    if arm.kind != "endpoint":
        raise NotMeasuredError("recorded replies have no log-probabilities of other replies")
    if tokenizer is None:
        raise NotMeasuredError(
            "log-probabilities of an endpoint need its tokenizer: give --tokenizer FOLDER"
        )
    _, url, model = back_end(arm.line)
    asked = {name: vars(answering)[name] for name in ("at_once", "timeout", "tries")}
    return endpoint_likelihood(Endpoint(url, model, **asked), tokenizer)


def _references(known: dict[tuple[Message, ...], str | None]) -> Speaker:
    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        return [Reply(known.get(tuple(messages)) or "") for messages in asked]

    def speaker(seed: int) -> Chat:
        return chat

    return speaker

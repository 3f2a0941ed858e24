"""`hen route`: which expert each conversation is for."""

import json
from collections.abc import Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.runs.routing import Route, RouteMode, open_router
from hen_jax.text.conversation import Message
from hen_jax.verbs.generate.generate import read_messages


def route(
    router: Path,
    prompts: Sequence[str] = (),
    messages: Path | None = None,
    model: Path | None = None,
    mode: RouteMode = "top1",
) -> list[Route]:
    """Prints a line for each: `{"expert", "probability", "probabilities", "weights"}`.

    Raises:
      InputError: nothing to route, no router, or not the model that it was trained with.
    """
    if bool(prompts) == (messages is not None):
        raise InputError("no prompt; give --prompt TEXT, once or more, or --messages FILE")
    asked: list[Sequence[Message]] = [(Message("user", prompt),) for prompt in prompts]
    if messages is not None:
        asked = [read_messages(messages)]
    found = open_router(router, model)(asked, mode)
    for one in found:
        print(json.dumps(one._asdict()))
    return found

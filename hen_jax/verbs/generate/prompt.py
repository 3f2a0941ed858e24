"""`hen prompt`: one method's reply to each prompt, printed; its trace only when asked for."""

import json

from hen_jax.core.errors import InputError
from hen_jax.methods.play import Played, play
from hen_jax.methods.table import Parts, method_named
from hen_jax.verbs.generate.generate import (
    GenerateRequest,
    conversations,
    open_speaker_of,
    require_settings,
)


def prompt(request: GenerateRequest, method: str, parts: Parts, *, trace: bool) -> list[Played]:
    """Prints a reply to each prompt; with `trace` each is a line of JSON with how it came about.

    Raises:
      InputError: no prompt, an unknown method, or a back-end that does not answer.
    """
    require_settings(request)
    found = method_named(method, parts)
    asked = conversations(request)
    if not asked:
        raise InputError("nothing to answer; give --prompt TEXT or --messages FILE")
    played = play([found(messages) for messages in asked], open_speaker_of(request)(request.seed))
    for one in played:
        if trace or request.json:
            told = {**one.outcome._asdict(), "calls": one.calls, "tokens": one.tokens}
            print(json.dumps(told, ensure_ascii=False))
        else:
            print(one.outcome.reply)
    return played

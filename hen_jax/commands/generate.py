"""`hen generate`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import add_endpoint, add_speaker
from hen_jax.commands.request import request_of


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("generate", help="reply to prompts")
    add_speaker(verb)
    add_endpoint(verb)
    verb.add_argument("--prompt", action="append", default=[], help="repeat for a batch")
    verb.add_argument("--messages", type=Path, help="or a JSON file with one conversation")
    verb.add_argument("--input", type=Path, help="or a file of prompt or messages, with --out")
    verb.add_argument("--out", type=Path, help="a line per reply, in order; goes on where it was")
    verb.add_argument("--n", type=int, default=1, help="replies to each prompt")
    verb.add_argument("--json", action="store_true", help="print replies as JSON lines")
    verb.add_argument("--raw", action="store_true", help="continue the text; no chat format")
    verb.set_defaults(verb=generate_verb)


def generate_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen generate`."""
    import dataclasses

    from hen_jax.core.errors import InputError
    from hen_jax.verbs.generate.generate import generate_replies

    request = dataclasses.replace(
        request_of(chosen),
        prompts=tuple(chosen.prompt),
        messages=chosen.messages,
        n=chosen.n,
        json=chosen.json,
        raw=chosen.raw,
    )
    if (chosen.input is None) != (chosen.out is None):
        raise InputError("--input and --out go together: prompts from one file, replies to another")
    if chosen.input is None:
        generate_replies(request)
    else:
        from hen_jax.verbs.generate.file import generate_file

        generate_file(request, chosen.input, chosen.out)

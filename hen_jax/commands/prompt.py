"""`hen prompt`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.method_flags import add_method_parts
from hen_jax.commands.request import request_of


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("prompt", help="reply by a method: coe_cbt, ebg, hef, tooled, ...")
    verb.add_argument("--method", required=True, help="a name, with +LEVER or -SWITCH behind it")
    add_method_parts(verb)
    verb.add_argument("--prompt", action="append", default=[], help="repeat for a batch")
    verb.add_argument("--messages", type=Path, help="or a JSON file with one conversation")
    verb.add_argument("--trace", action="store_true", help="JSON lines with the method's reasoning")
    verb.set_defaults(verb=prompt_verb)


def prompt_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen prompt`."""
    import dataclasses

    from hen_jax.verbs.generate.prompt import prompt
    from hen_jax.verbs.methods.parts import parts_of

    request = dataclasses.replace(
        request_of(chosen), prompts=tuple(chosen.prompt), messages=chosen.messages
    )
    prompt(request, chosen.method, parts_of(vars(chosen)), trace=chosen.trace)

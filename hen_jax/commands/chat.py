"""`hen chat`: its flags, and what it calls."""

import argparse
from typing import Any

from hen_jax.commands.flags import add_endpoint, add_speaker
from hen_jax.commands.request import request_of


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("chat", help="talk to a model in the terminal; /help there")
    add_speaker(verb)
    add_endpoint(verb)
    verb.add_argument("--guard", action="store_true", help="heed signs of a crisis and of harm")
    verb.add_argument("--place", help="with --guard: a country for its resources, such as US, CN")
    verb.set_defaults(verb=chat_verb)


def chat_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen chat`."""
    from hen_jax.verbs.generate.chat import chat

    chat(request_of(chosen), guarded=chosen.guard, place=chosen.place)

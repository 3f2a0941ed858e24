"""`hen route`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("route", help="which expert a conversation is for, by a router")
    verb.add_argument("--router", required=True, type=Path, help="the router/ of a router's run")
    verb.add_argument("--model", type=Path, help="its base, where that lies elsewhere by now")
    verb.add_argument("--prompt", action="append", default=[], help="repeat for a batch")
    verb.add_argument("--messages", type=Path, help="or a JSON file with one conversation")
    verb.add_argument("--mode", choices=("top1", "soft"), default="top1", help="of the weights")
    verb.set_defaults(verb=route_verb)


def route_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen route`."""
    from hen_jax.verbs.route import route

    route(chosen.router, chosen.prompt, chosen.messages, chosen.model, chosen.mode)

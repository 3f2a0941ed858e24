"""`hen rate`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("rate", help="a local page on which people rate replies")
    verb.add_argument("--items", required=True, type=Path, help="conversations, or pairs")
    verb.add_argument("--schema", required=True, help="of the items: messages, preference, ...")
    verb.add_argument("--kind", required=True, choices=("ratings", "choices"))
    verb.add_argument("--out", required=True, type=Path, help="folder; the same one to go on")
    verb.add_argument("--raters", nargs="+", default=["rater"], help="a name and a link for each")
    verb.add_argument("--language", choices=("en", "zh"), default="en", help="of the page")
    verb.add_argument("--scale", nargs=2, type=int, default=(1, 5), metavar=("LOW", "HIGH"))
    verb.add_argument("--checklist", type=Path, help="YAML of yes/no questions for experts")
    verb.add_argument("--host", default="127.0.0.1", help="others are reached from outside")
    verb.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    verb.add_argument("--seed", type=int, default=0, help="of orders and sides")
    verb.set_defaults(verb=rate_verb)


def rate_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen rate`."""
    from hen_jax.verbs.rate import RatingPage, rate

    rate(
        RatingPage(
            items=chosen.items,
            schema=chosen.schema,
            kind=chosen.kind,
            out=chosen.out,
            raters=tuple(chosen.raters),
            language=chosen.language,
            scale=tuple(chosen.scale),
            checklist=chosen.checklist,
            host=chosen.host,
            port=chosen.port,
            seed=chosen.seed,
        )
    )

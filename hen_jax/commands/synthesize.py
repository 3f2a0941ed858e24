"""`hen synthesize`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import add_endpoint


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("synthesize", help="steered conversations written by language models")
    verb.add_argument("--backend", required=True, help="model:DIR, endpoint:URL#NAME, replay:FILE")
    verb.add_argument("--out", required=True, type=Path, help="folder; the same one to go on")
    verb.add_argument("--user-backend", help="who plays the user; else the same")
    verb.add_argument("--judge", help="who judges the pairs; else nobody does")
    verb.add_argument("--patterns", type=Path, help="patterns.toml of yours; see hen data patterns")
    verb.add_argument("--materials", type=Path, help="personas, openings, prompts of yours (.toml)")
    verb.add_argument("--language", choices=("en", "zh"), default="en")
    verb.add_argument("--contexts", nargs="+", default=[], help="of the patterns; else all")
    verb.add_argument("--each", type=int, default=20, help="conversations of each context")
    verb.add_argument("--turns", nargs=2, type=int, default=(2, 4), metavar=("LEAST", "MOST"))
    verb.add_argument("--hard", type=float, default=0.5, help="share that gets a hard pair, too")
    verb.add_argument("--length-ratio", type=float, default=1.5, help="of the two sides, at most")
    verb.add_argument("--near", type=float, default=0.7, help="similarity that counts as repeated")
    verb.add_argument("--least", type=float, default=0.5, help="of a judge for chosen, 0 to 1")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--record", type=Path, help="add all replies to this replay file")
    verb.add_argument("--max-new-tokens", type=int, default=320)
    verb.add_argument("--temperature", type=float, default=0.8, help="of writers; judges have 0")
    verb.add_argument("--top-p", type=float, default=0.95)
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    verb.add_argument("--batch-size", type=int, default=16, help="conversations at a time")
    add_endpoint(verb)
    verb.epilog = "An endpoint's key: HEN_API_KEY or OPENAI_API_KEY in the environment."
    verb.set_defaults(verb=synthesize_verb)


def synthesize_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen synthesize`."""
    from hen_jax.verbs.synthesize.settings import from_flags
    from hen_jax.verbs.synthesize.synthesize import synthesize

    synthesize(from_flags(vars(chosen)))

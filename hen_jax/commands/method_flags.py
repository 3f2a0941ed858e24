"""Flags of the verbs that run methods."""

import argparse
from pathlib import Path

from hen_jax.commands.flags import add_endpoint, add_speaker


def add_method_parts(verb: argparse.ArgumentParser) -> None:
    """Who answers, and what methods need besides."""
    add_speaker(verb)
    add_endpoint(verb)
    verb.add_argument("--identifier", type=Path, help="hef: the folder of an emotion identifier")
    verb.add_argument("--lexicon", type=Path, help="or a file of word, emotion, 0 or 1 by tabs")
    verb.add_argument(
        "--labels", choices=("hed", "ed", "ebg"), help="of emotions; else hef: hed, ebg: ebg"
    )
    verb.add_argument("--knowledge", type=Path, help="tooled: event, relation, tail by tabs")
    verb.add_argument("--faq", type=Path, help="tooled: question, answer by tabs")
    verb.add_argument("--tool-role", choices=("tool", "user"), default="tool", help="who answers")
    verb.add_argument("--tool-timeout", type=float, default=2.0, help="seconds of one call")
    verb.add_argument("--definitions", type=Path, help="a mapping of emotions to definitions")
    verb.add_argument("--candidates", type=int, default=4, help="muffin: replies to choose from")


def add_compared(verb: argparse.ArgumentParser) -> None:
    """What `hen compare` and `hen ablate` have in common."""
    add_method_parts(verb)
    verb.add_argument("--input", required=True, type=Path, help="prompts, messages, or --schema's")
    verb.add_argument("--schema", help="of the input, such as hed: replies at the end are left out")
    verb.add_argument("--bare", action="store_true", help="without system messages of the input")
    verb.add_argument("--limit", type=int, default=0, help="conversations at most; 0: all")
    verb.add_argument("--out", required=True, type=Path, help="a folder; goes on where it was")

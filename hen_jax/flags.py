"""Flags that several verbs of `hen` have."""

import argparse
from pathlib import Path


def add_speaker(verb: argparse.ArgumentParser) -> None:
    """Who answers, and how."""
    verb.add_argument("--model", type=Path, help="a Hugging Face folder")
    verb.add_argument("--backend", help="or model:FOLDER, endpoint:URL#MODEL, replay:FILE")
    verb.add_argument("--adapter", type=Path, help="a PEFT adapter folder for that model")
    verb.add_argument("--system", help="a system message")
    verb.add_argument("--max-new-tokens", type=int, default=128)
    verb.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    verb.add_argument("--top-k", type=int, default=0, help="0 keeps all")
    verb.add_argument("--top-p", type=float, default=1.0, help="1 keeps all")
    verb.add_argument("--stop", action="append", default=[], help="a text before which to end")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")


def add_endpoint(verb: argparse.ArgumentParser) -> None:
    """How an endpoint is asked; its key is only in the environment."""
    verb.add_argument("--at-once", type=int, default=8, help="requests at a time to an endpoint")
    verb.add_argument("--per-minute", type=float, default=0, help="requests at most; 0: no limit")
    verb.add_argument("--timeout", type=float, default=120, help="seconds of one request")
    verb.add_argument("--tries", type=int, default=5, help="of each request")


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} is no OURS=THEIRS, such as prompt=question")
    return ours, theirs


def add_columns(verb: argparse.ArgumentParser) -> None:
    """Names of columns."""
    verb.add_argument(
        "--columns",
        nargs="+",
        default=[],
        type=_pair,
        metavar="OURS=THEIRS",
        help="columns that the file calls otherwise, such as prompt=question",
    )

"""Flags that several verbs of `hen` have."""

import argparse
from pathlib import Path

CACHE_DTYPES = ("float32", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Of keys and values while replies are written."""

CONFIG_HELP = "a built-in name (sft, sft:tiny; `hen config` lists them), FILE.py or FILE.py:VARIANT"


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


def add_judge_flags(verb: argparse.ArgumentParser) -> None:
    """All flags but those that name columns; `verbs.judge.settings.Judging` has their names."""
    verb.add_argument("--input", required=True, type=Path, help="replies, pairs or conversations")
    verb.add_argument("--rubric", required=True, help="distress, general, ..., by_context, FILE")
    verb.add_argument("--backend", required=True, help="model:DIR, endpoint:URL#NAME, replay:FILE")
    verb.add_argument("--out", required=True, type=Path, help="folder; the same one to go on")
    verb.add_argument("--mode", choices=("pointwise", "pairwise", "groupwise"), default="pointwise")
    verb.add_argument("--schema", default="replies", help="or preference, crossed, messages, ...")
    verb.add_argument("--language", choices=("en", "zh"), default="en", help="of the rubric")
    verb.add_argument("--by-dimension", action="store_true", help="pointwise: each dimension, too")
    verb.add_argument("--repeats", type=int, default=2, help="of each question")
    verb.add_argument("--probes", type=int, default=20, help="items to probe the judge with")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--nonce-seed", type=int, help="marks from a seed, for recordings only")
    verb.add_argument("--begin", action="store_true", help="model:DIR: begin its verdicts for it")
    verb.add_argument("--record", type=Path, help="add the judge's replies to this replay file")
    verb.add_argument("--max-new-tokens", type=int, default=96)
    verb.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    verb.add_argument("--top-p", type=float, default=1.0)
    verb.add_argument("--adapter", type=Path, help="a PEFT adapter folder for model:DIR")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    verb.add_argument("--batch-size", type=int, default=16, help="questions at a time to model:DIR")
    add_endpoint(verb)
    verb.epilog = "An endpoint's key: HEN_API_KEY or OPENAI_API_KEY in the environment."


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

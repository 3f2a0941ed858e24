"""`hen evaluate`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import add_endpoint


def add(verbs: Any) -> None:
    """The verb; `verbs.evaluate.settings.Evaluating` has the flags' names and defaults."""
    verb = verbs.add_parser("evaluate", help="measure models, adapters, endpoints or recordings")
    arm = "NAME=MODEL[:ADAPTER], NAME=endpoint:URL#MODEL, NAME=replay:FILE, NAME=references"
    verb.add_argument("--arm", action="append", default=[], help=f"{arm}; repeat to compare")
    verb.add_argument("--out", required=True, type=Path, help="folder; the same one to go on")
    verb.add_argument(
        "--suite",
        action="append",
        default=[],
        help="repeat: high_context, overlap, empathy, ... (docs/evaluate.md)",
    )
    verb.add_argument("--data", action="append", default=[], help="of items; shipped:NAME or FILE")
    verb.add_argument("--schema", help="of the data: hed (the default), messages, ...")
    verb.add_argument("--part", help="test (the default), valid, train or all of the data")
    verb.add_argument("--language", choices=("en", "zh"), help="only items in it")
    verb.add_argument("--limit", type=int, help="items of each task, or kind of a set, at most")
    verb.add_argument("--judge", help="model:DIR, endpoint:URL#NAME, replay:FILE")
    verb.add_argument("--judge-adapter", type=Path, help="a PEFT adapter folder for model:DIR")
    verb.add_argument("--judge-begin", action="store_true", help="begin its verdicts for it")
    verb.add_argument("--rubric", help="of the judge: high_context (the default), ..., FILE")
    verb.add_argument("--nonce-seed", type=int, help="marks from a seed, for recordings only")
    verb.add_argument("--reward", help="MODEL[:ADAPTER] of a reward model")
    verb.add_argument("--ratings", help="a file of people's votes on items called ARM/ID")
    verb.add_argument("--scale", help="of the ratings: LOW-HIGH, 1-5 by default")
    verb.add_argument("--sentiment", help="FILE[,FILE] of text and label, not the shipped sets")
    verb.add_argument("--tokenizer", type=Path, help="an endpoint's, for its log-probabilities")
    verb.add_argument("--option", action="append", default=[], help="KEY=VALUE, for a suite")
    verb.add_argument("--inspect", type=Path, help="folder for logs that inspect-ai opens")
    verb.add_argument("--seed", type=int, help="of draws and of the bootstrap")
    verb.add_argument("--draws", type=int, help="of the bootstrap, 2000 by default")
    verb.add_argument("--max-new-tokens", type=int, help="128 by default")
    verb.add_argument("--temperature", type=float, help="0, greedy, by default")
    verb.add_argument("--top-p", type=float)
    verb.add_argument("--dtype", choices=("float32", "bfloat16"))
    verb.add_argument("--batch-size", type=int, help="replies at a time of a model of ours")
    add_endpoint(verb)
    verb.set_defaults(verb=evaluate_verb)


def evaluate_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen evaluate`."""
    from hen_jax.verbs.evaluate.evaluate import evaluate
    from hen_jax.verbs.evaluate.settings import from_flags

    evaluate(from_flags(vars(chosen)))

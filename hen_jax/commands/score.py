"""`hen score`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import add_columns


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("score", help="what a reward model gives each reply of a file")
    verb.add_argument("--model", required=True, type=Path, help="a folder; of a reward model")
    verb.add_argument("--adapter", type=Path, help="or a PEFT adapter with a score head for it")
    verb.add_argument("--input", required=True, type=Path, help="pairs or conversations")
    verb.add_argument("--schema", required=True, help="preference, messages, completion, ...")
    verb.add_argument("--out", required=True, type=Path, help="a line per record, in its order")
    verb.add_argument("--batch-size", type=int, default=8, help="rows at a time on each device")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_columns(verb)
    verb.set_defaults(verb=score_verb)


def score_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen score`."""
    from hen_jax.verbs.score import Scoring, score

    score(
        Scoring(
            model=chosen.model,
            input=chosen.input,
            schema=chosen.schema,
            out=chosen.out,
            adapter=chosen.adapter,
            columns=dict(chosen.columns),
            batch_size=chosen.batch_size,
            dtype=chosen.dtype,
        )
    )

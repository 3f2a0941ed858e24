"""`hen identify`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("identify", help="small classifiers: EPITOME levels, emotions")
    parts = verb.add_subparsers(required=True, metavar="WHAT")
    train = parts.add_parser("train", help="learn labels of replies, or of what users say")
    train.add_argument("--input", type=Path, help="rows of context, reply, labels; or --schema's")
    train.add_argument("--schema", help="records with a label, such as hed")
    train.add_argument("--label", help="which label of the schema; else emotion")
    train.add_argument("--epitome", nargs="+", default=[], type=_named, metavar="ER=FILE")
    train.add_argument("--out", required=True, type=Path, help="a folder")
    train.add_argument("--epochs", type=int, default=30)
    train.add_argument("--batch-size", type=int, default=32)
    train.add_argument("--learning-rate", type=float, default=3e-3)
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(verb=train_verb)
    label = parts.add_parser("label", help="label the replies of a file")
    label.add_argument("--model", required=True, type=Path, help="an identifier")
    label.add_argument("--input", required=True, type=Path)
    label.add_argument("--schema", required=True, help="messages, completion, hed, ...")
    label.add_argument("--out", required=True, type=Path, help="a line per record")
    label.set_defaults(verb=label_verb)


def train_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen identify train`."""
    from hen_jax.methods.identifier_training import TrainingConfig
    from hen_jax.verbs.methods.identify import Identifying, identify_train

    training = TrainingConfig(
        chosen.epochs, chosen.batch_size, chosen.learning_rate, seed=chosen.seed
    )
    identify_train(
        Identifying(
            chosen.out,
            chosen.input,
            chosen.schema,
            chosen.label,
            dict(chosen.epitome),
            training,
        )
    )


def label_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen identify label`."""
    from hen_jax.verbs.methods.identify import identify_label

    identify_label(chosen.model, chosen.input, chosen.schema, chosen.out)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=FILE, such as ER=er.csv")
    return name, Path(path)

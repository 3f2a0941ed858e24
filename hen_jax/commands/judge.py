"""`hen judge`: its flags, and what it calls."""

import argparse
from typing import Any

from hen_jax.commands.flags import add_columns, add_judge_flags


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("judge", help="grade, compare or rank replies by a language model")
    add_judge_flags(verb)
    add_columns(verb)
    verb.set_defaults(verb=judge_verb)


def judge_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen judge`."""
    from hen_jax.verbs.judge.judge import judge
    from hen_jax.verbs.judge.settings import from_flags

    judge(from_flags(vars(chosen)))

"""`hen bench`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verbs around hen-bench@1; `hen evaluate --suite hen-bench@1` runs it."""
    bench = verbs.add_parser("bench", help="hen-bench@1: controls, items for people, leaderboard")
    own = bench.add_subparsers(required=True, metavar="VERB")
    verb = own.add_parser("check", help="what rankers without understanding make of the items")
    verb.set_defaults(verb=check_verb)
    verb = own.add_parser("export", help="the items as pairs, for hen rate")
    verb.add_argument("--out", required=True, type=Path, help="folder")
    verb.set_defaults(verb=_export_verb)
    verb = own.add_parser("leaderboard", help="a table from results of hen evaluate")
    verb.add_argument("--results", required=True, nargs="+", type=Path, help="their folders")
    verb.add_argument("--out", required=True, type=Path, help="the Markdown file")
    verb.set_defaults(verb=leaderboard_verb)


def check_verb(_: argparse.Namespace, __: list[str]) -> None:
    """`hen bench check`."""
    from hen_jax.verbs.bench import check

    check()


def _export_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen bench export`."""
    from hen_jax.verbs.bench import export_items

    export_items(chosen.out)


def leaderboard_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen bench leaderboard`."""
    from hen_jax.verbs.bench import leaderboard

    leaderboard(chosen.results, chosen.out)

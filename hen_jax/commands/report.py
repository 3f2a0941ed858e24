"""`hen report`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("report", help="a run or a pipeline told in one page for people")
    verb.add_argument("folder", type=Path, help="the work directory of a run or a pipeline")
    verb.add_argument("--out", required=True, type=Path, help="an HTML file; it needs no network")
    verb.set_defaults(verb=report_verb)


def report_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen report`."""
    from hen_jax.verbs.report.report import report

    report(chosen.folder, chosen.out)

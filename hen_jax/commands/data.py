"""`hen data ...`: flags, and what each verb calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import add_columns


def add(verbs: Any) -> None:
    """The verbs that look into data files."""
    data = verbs.add_parser("data", help="look into a data file before training on it")
    verbs = data.add_subparsers(required=True, metavar="VERB")
    schema = "hed, steered, messages, preference, ...; `hen data schemas` explains all"
    _add_files(verbs, schema)
    _add_people(verbs, schema)


def _add_files(verbs: Any, schema: str) -> None:
    verb = verbs.add_parser("validate", help="list every bad record; exit 1 if there is one")
    verb.add_argument("file", type=Path)
    verb.add_argument("--schema", required=True, help=schema)
    verb.add_argument("--out", type=Path, help="folder for good.jsonl and quarantine.jsonl")
    add_columns(verb)
    verb.set_defaults(verb=validate_verb)

    verb = verbs.add_parser("schemas", help="the columns of each schema with examples, as Markdown")
    verb.set_defaults(verb=schemas_verb)

    verb = verbs.add_parser("stats", help="tokens, labels, lengths, duplicates, give-away cues")
    verb.add_argument("file", type=Path)
    verb.add_argument("--schema", required=True, help=schema)
    verb.add_argument("--out", type=Path, help="folder for the figures and stats.json")
    verb.add_argument("--model", type=Path, help="model folder whose tokenizer counts tokens")
    add_columns(verb)
    verb.set_defaults(verb=stats_verb)

    verb = verbs.add_parser("scrub", help="mask e-mail addresses, telephone and ID numbers")
    verb.add_argument("file", type=Path)
    verb.add_argument("--out", required=True, type=Path, help="the masked file")
    verb.set_defaults(verb=scrub_verb)


def _add_people(verbs: Any, schema: str) -> None:
    verb = verbs.add_parser("ratings", help="people's ratings or choices: agreement, soft labels")
    verb.add_argument("files", nargs="*", type=Path, help="of votes: CSV, JSON lines, Excel, ...")
    verb.add_argument("--kind", required=True, choices=("ratings", "choices"))
    verb.add_argument("--items", type=Path, help="what was rated; choices: pairs")
    verb.add_argument("--export-items", type=Path, help="instead: write these as blind sheets")
    verb.add_argument("--schema", required=True, help=f"of the items: {schema}")
    verb.add_argument("--out", required=True, type=Path, help="folder for labels, or for sheets")
    verb.add_argument("--key", type=Path, help="which item a name on a sheet is; keep it apart")
    verb.add_argument("--sheets", type=int, default=2, help="how many, one for each annotator")
    verb.add_argument("--scale", nargs=2, type=float, default=(1, 5), metavar=("LOW", "HIGH"))
    verb.add_argument("--annotators", nargs="+", default=[], help="columns of a wide file")
    verb.add_argument(
        "--weights", choices=("equal", "dawid_skene", "bradley_terry"), default="equal"
    )
    verb.add_argument("--no-agreement", action="store_true", help="take votes as they are")
    verb.add_argument("--seed", type=int, default=0, help="of orders, or of the bootstrap")
    add_columns(verb)
    verb.set_defaults(verb=ratings_verb)

    verb = verbs.add_parser("sense7", help="desired against perceived empathy of a workbook")
    verb.add_argument("file", type=Path, help=".xlsx or .jsonl with the SENSE-7 columns")
    verb.add_argument("--out", required=True, type=Path, help="folder for the report")
    verb.add_argument("--contexts", type=Path, help="JSON: name of a task -> context")
    verb.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    verb.set_defaults(verb=sense7_verb)

    verb = verbs.add_parser("patterns", help="what empathy each context asks for, to edit or learn")
    verb.add_argument("--out", required=True, type=Path, help="folder for patterns.toml")
    verb.add_argument("--patterns", type=Path, help="a file to begin with, in place of ours")
    verb.add_argument("--sense7", type=Path, help="rated conversations to learn from")
    verb.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    verb.set_defaults(verb=patterns_verb)


def validate_verb(chosen: argparse.Namespace, _: list[str]) -> int:
    """`hen data validate`; 1 if a record is bad."""
    from hen_jax.runs.sources import locate_source
    from hen_jax.verbs.data.checking import validate

    file, columns = locate_source(str(chosen.file)), dict(chosen.columns)
    return 1 if validate(file, chosen.schema, chosen.out, columns).problems else 0


def schemas_verb(_: argparse.Namespace, __: list[str]) -> None:
    """`hen data schemas`."""
    from hen_jax.verbs.data.schemas_page import markdown

    print(markdown(), end="")


def stats_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data stats`."""
    from hen_jax.runs.sources import locate_source
    from hen_jax.verbs.data.stats import stats

    file = locate_source(str(chosen.file))
    stats(file, chosen.schema, chosen.out, chosen.model, dict(chosen.columns))


def scrub_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data scrub`."""
    from hen_jax.verbs.data.checking import scrub

    scrub(chosen.file, chosen.out)


def ratings_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data ratings`."""
    from hen_jax.verbs.data.rating_sheets import run_ratings

    run_ratings(chosen)


def sense7_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data sense7`."""
    from hen_jax.verbs.data.sense7 import analyse

    analyse(chosen.file, chosen.out, chosen.contexts, chosen.seed)


def patterns_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data patterns`."""
    from hen_jax.verbs.data.patterns import write_patterns

    write_patterns(chosen.out, chosen.sense7, chosen.patterns, chosen.seed)

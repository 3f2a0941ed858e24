"""`hen show`: its flags, and what it calls."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import CONFIG_HELP, add_columns


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("show", help="one example, with the tokens that train set apart")
    verb.add_argument("--config", help=f"{CONFIG_HELP} of a run")
    verb.add_argument("--model", type=Path, help="instead: a model folder, with --data, --schema")
    verb.add_argument("--data", type=Path, help="a data file")
    verb.add_argument("--schema", help="of the data file")
    add_columns(verb)
    verb.add_argument("--example", type=int, default=1, help="which of the train part, from 1")
    verb.add_argument("--no-color", action="store_true", help="marks what trains with brackets")
    verb.set_defaults(verb=show_verb, takes_config=True)


def show_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen show`."""
    from hen_jax.core.errors import InputError
    from hen_jax.verbs.show import from_config, from_file, show

    colour = sys.stdout.isatty() and not chosen.no_color and "NO_COLOR" not in os.environ
    if chosen.config is not None:
        show(from_config(chosen.config, overrides, chosen.example, colour=colour))
    elif None not in (chosen.model, chosen.data, chosen.schema):
        wanted = from_file(
            chosen.model,
            chosen.data,
            chosen.schema,
            chosen.example,
            colour=colour,
            columns=dict(chosen.columns),
        )
        show(wanted)
    else:
        raise InputError("give --config, or --model, --data and --schema")

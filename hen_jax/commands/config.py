"""`hen config`: its flags, and what it calls."""

import argparse
from typing import Any

from hen_jax.commands.flags import CONFIG_HELP


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("config", help="the built-in configs, or every field of one")
    verb.add_argument("config", nargs="?", help=CONFIG_HELP)
    verb.set_defaults(verb=config_verb, takes_config=True)


def config_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen config`."""
    from hen_jax.verbs.run.show_config import list_configs, show_config

    if chosen.config is None:
        list_configs()
    else:
        show_config(chosen.config, overrides)

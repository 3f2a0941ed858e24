"""`hen plan`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import CACHE_DTYPES, CONFIG_HELP


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("plan", help="does it fit, how fast could it be; needs no accelerator")
    verb.add_argument("--config", required=True, help=CONFIG_HELP)
    verb.add_argument("--topology", required=True, help="such as v5e:4x4, v5p:2x2x4 or h100:8")
    verb.add_argument("--stage", help="one stage of the config (default: all)")
    verb.add_argument("--json", type=Path, help="write the plan there too")
    verb.add_argument("--search", action="store_true", help="try meshes and microbatches")
    verb.add_argument("--rows", type=int, help="of --stage=decode: replies at a time")
    verb.add_argument(
        "--places", type=int, help="of --stage=decode: tokens of each, prompt included"
    )
    verb.add_argument("--cache-dtype", choices=CACHE_DTYPES, help="of --stage=decode: keys, values")
    verb.epilog = "Set any field: --config.microbatches=2"
    verb.set_defaults(verb=plan_verb, takes_config=True)


def plan_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen plan`."""
    from hen_jax.core.errors import InputError
    from hen_jax.runs.abstract_decoding import CacheRoom
    from hen_jax.verbs.plan import plan

    room = CacheRoom(chosen.rows, chosen.places, chosen.cache_dtype)
    if room != CacheRoom() and chosen.stage != "decode":
        raise InputError("--rows, --places and --cache-dtype are of --stage=decode; give it too")
    if any(size is not None and size < 1 for size in (room.rows, room.places)):
        raise InputError("--rows and --places must be at least 1")
    plan(chosen.config, overrides, chosen.topology, chosen.stage, chosen.json, chosen.search, room)

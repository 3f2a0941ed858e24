"""`hen ablate`: its flags, and what it calls."""

import argparse
from typing import Any

from hen_jax.commands.compare import comparing_of
from hen_jax.commands.method_flags import add_compared


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("ablate", help="what each lever of a method does")
    verb.add_argument("--method", required=True, help="hef, coe_cbt, ebg, ...")
    verb.add_argument("--levers", nargs="*", default=[], help="some of its levers; else all")
    verb.add_argument("--design", choices=("one-out", "full"), default="one-out")
    add_compared(verb)
    verb.set_defaults(verb=ablate_verb)


def ablate_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen ablate`."""
    from hen_jax.verbs.methods.ablate import ablate

    comparing = comparing_of(chosen, (chosen.method,))
    ablate(comparing, chosen.method, chosen.levers, chosen.design)

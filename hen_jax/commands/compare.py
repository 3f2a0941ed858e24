"""`hen compare`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hen_jax.commands.method_flags import add_compared
from hen_jax.commands.request import request_of

if TYPE_CHECKING:
    from hen_jax.verbs.methods.comparing import Comparing


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("compare", help="methods and models on the same conversations")
    verb.add_argument(
        "--methods",
        required=True,
        nargs="+",
        metavar="NAME",
        help="METHOD, NAME=BACKEND, NAME=METHOD@BACKEND; a backend may be adapter:DIR",
    )
    add_compared(verb)
    verb.add_argument("--apart", action="store_true", help="one by one: own time and peak memory")
    verb.add_argument("--epitome", type=Path, help="an identifier of EPITOME levels")
    verb.set_defaults(verb=compare_verb)


def compare_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen compare`."""
    from hen_jax.verbs.methods.compare import compare

    methods = tuple(one for given in chosen.methods for one in given.split(",") if one)
    compare(comparing_of(chosen, methods, apart=chosen.apart, epitome=chosen.epitome))


def comparing_of(chosen: argparse.Namespace, methods: tuple[str, ...], **more: Any) -> "Comparing":
    """What the flags ask for."""
    from hen_jax.verbs.methods.comparing import Comparing
    from hen_jax.verbs.methods.parts import parts_of

    return Comparing(
        request=request_of(chosen),
        methods=methods,
        input=chosen.input,
        out=chosen.out,
        schema=chosen.schema,
        bare=chosen.bare,
        limit=chosen.limit,
        parts=parts_of(vars(chosen)),
        **more,
    )

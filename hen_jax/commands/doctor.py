"""`hen doctor`: its flags, and what it calls."""

import argparse
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("doctor", help="devices, versions, network, cache; exit 2 if not well")
    verb.add_argument("--dry", action="store_true", help="do not connect to other processes")
    verb.set_defaults(verb=doctor_verb)


def doctor_verb(chosen: argparse.Namespace, _: list[str]) -> int:
    """`hen doctor`; 2 if something is not well."""
    from hen_jax.verbs.doctor import doctor

    return 0 if doctor(dry=chosen.dry) else 2

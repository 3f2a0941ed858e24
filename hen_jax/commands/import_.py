"""`hen import`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("import", help="bring a model into a Hugging Face folder")
    verb.add_argument("source", help="smollm2-135m, tiny, a folder, a .gguf file or a hub id")
    verb.add_argument("out", type=Path, help="a folder that does not exist yet")
    verb.add_argument("--dtype", help="float32, bfloat16 or float16 (default: as stored)")
    verb.set_defaults(verb=import_verb)


def import_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen import`."""
    from hen_jax.runs.import_model import import_model

    import_model(chosen.source, chosen.out, chosen.dtype)

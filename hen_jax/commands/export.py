"""`hen export`: its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("export", help="write a run's weights for other tools")
    verb.add_argument("--run", required=True, type=Path, help="the --workdir of a run")
    formats = ("hf", "peft", "gguf", "gguf-lora")
    verb.add_argument("--format", required=True, choices=formats, help="gguf is llama.cpp's")
    verb.add_argument("--out", required=True, type=Path, help="a new folder; of GGUF, a .gguf file")
    dtypes = "float32, bfloat16 or float16 (default: the run's); gguf: q8_0 too"
    verb.add_argument("--dtype", help=dtypes)
    verb.add_argument("--base-model", help="hub id OWNER/NAME of the base, where not recorded")
    verb.add_argument("--expert", help="which one, of a run that trained several")
    verb.add_argument("--all-experts", action="store_true", help="each, under its name in --out")
    verb.set_defaults(verb=_export_verb)


def _export_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen export`."""
    from hen_jax.runs.export.folders import describe_export, export
    from hen_jax.runs.export.gguf import export_gguf

    if chosen.all_experts:
        _all_experts(chosen)
        return
    write = export_gguf if chosen.format.startswith("gguf") else export
    given = chosen.run, chosen.out, chosen.format, chosen.dtype, chosen.base_model, chosen.expert
    exported = write(*given)
    print(describe_export(exported))


def _all_experts(chosen: argparse.Namespace) -> None:
    from hen_jax.core.errors import InputError
    from hen_jax.runs.export.experts import export_experts
    from hen_jax.runs.export.folders import describe_export

    if chosen.expert is not None:
        raise InputError("--all-experts writes each; leave --expert out")
    given = chosen.run, chosen.out, chosen.format, chosen.dtype, chosen.base_model
    found = export_experts(*given)
    print("\n".join([*map(describe_export, found.exported), "Next:", *found.lines]))

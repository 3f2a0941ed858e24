"""`hen export --format gguf` and `gguf-lora`: for llama.cpp, read back and compared."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from hen_jax.adapters.lora import merge_adapter, merge_rounding
from hen_jax.core.errors import InputError
from hen_jax.core.folders import require_apart
from hen_jax.core.outputs import output_files, require_ours
from hen_jax.core.trees import flatten
from hen_jax.io import companions, gguf, gguf_adapter, gguf_config, gguf_keys, layout
from hen_jax.io.gguf_fields import GgufValue, require_computable
from hen_jax.io.gguf_tokenizer import require_same_tokens
from hen_jax.io.gguf_vocabulary import read_vocabulary
from hen_jax.io.gguf_write import KINDS, write_gguf, write_gguf_adapter
from hen_jax.runs.earlier import previous_run
from hen_jax.runs.export.folders import base_origin, require_apart_from_run
from hen_jax.runs.export.trained import (
    Exported,
    TrainedModel,
    checked,
    open_trained,
    probe_logits,
    require_finite_params,
)
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.origin import Origin, public_id, without_paths
from hen_jax.text.chat import stop_ids

GgufFormat = Literal["gguf", "gguf-lora"]

_RECORD = "hen_jax.run"
"""The field with the run's record, as `hen_jax.json` holds it in other exports."""


def export_gguf(
    run: Path,
    out: Path,
    format_: GgufFormat,
    dtype: str | None = None,
    base_model: str | None = None,
    expert: str | None = None,
) -> Exported:
    """Writes one GGUF file, reads it back, and checks that it speaks as the run does.

    "gguf" is a whole model with its tokenizer and chat template, the adapter merged in float32 and
    rounded once; "gguf-lora" is the adapter, for `--lora` of llama.cpp beside a GGUF of the base.

    Args:
      run: the run's folder.
      out: a `.gguf` file; one that we wrote and nobody changed is replaced.
      format_: which of the two.
      dtype: float32, bfloat16, float16, or of a whole model q8_0; None as the run holds it.
      base_model: hub id of the base, where its folder does not say it.
      expert: which of several that the run trained.

    Raises:
      InputError: nothing to export, a model or tokenizer that llama.cpp does not know, an `out`
        that may not be replaced, or numbers that are not finite.
      RuntimeError: the reloaded weights do not give the run's logits; `out` is as it was.
    """
    if base_model is not None:
        public_id(base_model)
    if out.suffix != ".gguf":
        raise InputError(f"{out} must be a file that ends in .gguf")
    if dtype is not None and dtype not in KINDS:
        raise InputError(
            f"dtype {dtype!r} is not supported for GGUF; use one of {', '.join(KINDS)}"
        )
    require_ours(out)
    require_apart_from_run(out, run)
    require_apart(out, previous_run(run).base)
    trained = open_trained(run, expert)
    require_computable(trained.model.config)
    require_finite_params(trained)
    about = _about(trained, out, base_origin(trained, out, base_model))
    write = _export_model if format_ == "gguf" else _export_adapter
    return write(trained, out, dtype, about)


def _export_model(
    trained: TrainedModel, out: Path, dtype: str | None, about: dict[str, GgufValue]
) -> Exported:
    model, lora = trained.model, trained.lora
    vocabulary = read_vocabulary(model.folder, model.config.vocab_size, _ends(model.folder))
    merged, rounding = trained.params, 0.0
    if lora is not None:
        merged = merge_adapter(model.base, trained.params, lora.scale)
        rounding = merge_rounding(model.base, trained.params, lora.scale)
    dtype = dtype or _held(merged)
    tensors = layout.hf_tensors(merged, model.config, None)
    with output_files(out) as (staged,):
        write_gguf(staged, model.config, tensors, vocabulary, dtype=dtype, about=about)
        reader = gguf.open_gguf(staged)
        require_same_tokens(reader, model.folder)
        config = gguf_config.read_gguf_config(reader)
        if config != gguf_keys.as_read(model.config):
            raise RuntimeError(f"{out} would read as {config}; it was not written")
        reloaded = layout.read_tree(gguf.read_gguf_tensors(reader, config), config)
        logits = probe_logits(model, None, reloaded)
        return checked(trained, out, rounding, logits, dtype)


def _export_adapter(
    trained: TrainedModel, out: Path, dtype: str | None, about: dict[str, GgufValue]
) -> Exported:
    model, lora = trained.model, trained.lora
    if lora is None:
        raise InputError("the run trained all parameters and has no adapter; use --format gguf")
    dtype = dtype or _held(trained.params)
    with output_files(out) as (staged,):
        write_gguf_adapter(staged, model.config, lora, trained.params, dtype=dtype, about=about)
        read_lora, adapter = gguf_adapter.read_gguf_adapter(staged, model.config)
        return checked(trained, out, 0.0, probe_logits(model, read_lora, adapter), dtype)


def _ends(folder: Path) -> tuple[int, ...]:
    return companions.all_ends(folder, stop_ids(known_tokenizer(folder)))


def _held(params: object) -> str:
    """The dtype of the matrices of a tree."""
    return str(next(leaf.dtype for leaf in flatten(params).values() if np.ndim(leaf) > 1))


def _about(trained: TrainedModel, out: Path, origin: Origin) -> dict[str, GgufValue]:
    """What the file says of itself; no path of this machine."""
    about: dict[str, GgufValue] = {
        "general.name": out.stem,
        _RECORD: json.dumps(without_paths(trained.record)),
    }
    if origin.license is not None:
        about["general.license"] = origin.license
    if origin.base_model is not None:
        owner, _, name = origin.base_model.partition("@")[0].rpartition("/")
        about |= {
            "general.base_model.count": 1,
            "general.base_model.0.name": name,
            "general.base_model.0.organization": owner,
            "general.base_model.0.repo_url": f"https://huggingface.co/{owner}/{name}",
        }
    return about

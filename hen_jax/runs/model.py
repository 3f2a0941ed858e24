"""Opening a base model for a run: fetched if need be, placed on the mesh, with its tokenizer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from hen_jax.core.cached import built_once
from hen_jax.core.checksums import named_sha256, text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.links import real_path
from hen_jax.core.mesh import Layout, Rules, Shardings
from hen_jax.core.records import require_record, verify
from hen_jax.core.types import Tree
from hen_jax.io import hf
from hen_jax.io.packages import cache_folder
from hen_jax.models.config import SCORE_LABELS, DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.models.heads import ScoreHead
from hen_jax.runs.import_model import write_import
from hen_jax.training.placement import parameter_shardings


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The base model: a Hugging Face folder, a name that `hen import` knows, or a hub id."""

    source: str  # such as smollm2-135m, models/mine or OWNER/NAME
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # frozen; None: as stored
    trained_dtype: Literal["float32", "bfloat16"] = "float32"  # bfloat16 is rounded stochastically


class BaseModel(NamedTuple):
    """A base model in memory, beside the abstract structure that holds it and its adapter."""

    folder: Path
    config: DecoderConfig
    graphdef: nnx.GraphDef
    base: Tree
    shardings: Shardings


def base_dtype(settings: ModelSettings, lora: LoraConfig | None) -> str | None:
    """What a run holds its base in; None is as stored. Adapters are float32.

    Without an adapter the base is what trains. Its dtype is never taken from the file: in bfloat16
    and rounded to the nearest, nine weights of ten would not move.

    Raises:
      InputError: `dtype` and `trained_dtype` contradict each other, or an adapter.
    """
    dtype, trained = settings.dtype, settings.trained_dtype
    if lora is not None:
        if trained != "float32":
            raise InputError(
                f"config.model.trained_dtype is {trained!r}; with an adapter give 'float32'"
            )
        return dtype
    if dtype not in (None, trained):
        raise InputError(
            f"config.model.dtype is {dtype!r}, but all parameters train and "
            f"config.model.trained_dtype is {trained!r}; leave config.model.dtype out, or give an "
            "adapter"
        )
    return trained


def ensure_model(settings: ModelSettings) -> Path:
    """The Hugging Face folder of the base: as given, or imported once into the cache.

    Several processes may import it at once; the first one's stays.
    """
    source = Path(settings.source)
    if (source / "config.json").exists():
        return source
    folder = cache_folder() / "models" / _entry(settings.source)
    built_once(folder, lambda new: _import_into_cache(settings.source, new, folder), _damage)
    return folder


def _entry(source: str) -> str:
    """The name of a model in the cache; of a local file it holds which one, and of when."""
    name = source.replace("/", "--")
    path = Path(source)
    if not path.is_file():
        return name
    found = path.stat()
    which = f"{real_path(path)} {found.st_size} {found.st_mtime_ns}"
    return f"{path.name}-{text_sha256(which)[:16]}"


def _import_into_cache(source: str, new: Path, folder: Path) -> None:
    written = write_import(source, new)
    print(f"imported {source} into {folder}: {written.parameters:,} parameters, {written.dtype}")


def _damage(folder: Path) -> str | None:
    """What is wrong with an imported model; its weights are compared when they are read."""
    try:
        require_record(folder, hf.MODEL_KIND)
        verify(folder)
    except InputError as error:
        return str(error).splitlines()[0]
    return None


def open_model(
    folder: Path,
    mesh: Mesh,
    *,
    lora: LoraConfig | None = None,
    execution: Execution = Execution(),
    dtype: str | None = None,
    rules: Rules = (),
    config: DecoderConfig | None = None,
    seed: int = 0,
) -> BaseModel:
    """Reads the base tensor by tensor onto the mesh; `rules` as in `MeshConfig`.

    `config` is the model that is wanted, where it is not the folder's own: one with a score head
    (`with_score_head`), which begins at random by `seed` if the folder has none. It is float32 in
    any case, as is all that always trains.
    """
    stored = hf.read_config(folder)
    config = config or stored
    layout = Layout(mesh, rules)
    model = abstract(config, lora, execution, layout)
    shardings = parameter_shardings(model, mesh, rules)
    if config != stored:  # a language head may be read, and is left out below
        whole = abstract(stored, lora, execution, layout)
        shardings = {**parameter_shardings(whole, mesh, rules), **shardings}
    int8 = execution.base_dtype == "int8"
    if int8 and lora is None:
        raise InputError(
            "config.execution.base_dtype is 'int8', which cannot be trained; give config.adapter"
        )
    base = hf.read_params(folder, stored, dtype, shardings, int8)
    if config.score_head:
        base = _scored(base, config, shardings, seed)
    return BaseModel(folder, config, split(model).graphdef, base, shardings)


def _scored(base: Tree, config: DecoderConfig, shardings: Shardings, seed: int) -> Tree:
    """`base` without a language head, and with a score head in float32."""
    kept = {name: leaves for name, leaves in base.items() if name not in ("head", SCORE)}
    if SCORE in base:
        kernel = base[SCORE]["kernel"].astype(jnp.float32)
    else:
        kernel = ScoreHead(jax.random.key(seed), config).kernel[...]
    return kept | {SCORE: {"kernel": jax.device_put(kernel, shardings[f"{SCORE}/kernel"])}}


def language_model(config: DecoderConfig) -> DecoderConfig:
    """The folder's own model, which must have a language head: what most stages train.

    Raises:
      InputError: it is a reward model.
    """
    if config.score_head:
        raise InputError(
            "config.model.source is a reward model, which has no language head; give the model "
            "that it was made from"
        )
    return config


def with_score_head(config: DecoderConfig, labels: tuple[str, ...] = SCORE_LABELS) -> DecoderConfig:
    """The same trunk with a score head in place of the language head."""
    return dataclasses.replace(config, score_head=True, score_labels=labels)


SCORE = "score"
"""The key of the score head in a tree of parameters."""

WEIGHT_FILES = ("*.safetensors",)
"""The files of a model folder that hold its weights."""

TEXT_FILES = ("tokenizer*", "chat_template*", "added_tokens.json", "special_tokens_map.json")
"""The files of a model folder that say how it reads text."""


def fingerprint(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over the names and contents of a folder's files that match one of `patterns`."""
    found = {path.name: path for pattern in patterns for path in folder.glob(pattern)}
    return named_sha256(sorted(found.items()))

"""Opening a base model for a run: fetched if need be, placed on the mesh, with its tokenizer."""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flax import nnx
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.mesh import Layout, Rules
from hen_jax.core.types import Tree
from hen_jax.io import hf
from hen_jax.io.packages import cache_folder
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.runs.import_model import import_model
from hen_jax.text.detect import detect_format
from hen_jax.text.formats import ChatFormat
from hen_jax.text.tokenizer import load_tokenizer
from hen_jax.training.placement import Shardings, parameter_shardings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The base model: a Hugging Face folder, a name that `hen import` knows, or a hub id."""

    source: str
    dtype: str | None = None  # of the parameters; None keeps what is stored


class Words(NamedTuple):
    """How a model reads text."""

    tokenizer: "PreTrainedTokenizerFast"
    chat_format: ChatFormat


class Opened(NamedTuple):
    """A base model in memory, beside the abstract structure that holds it and its adapter."""

    folder: Path
    config: DecoderConfig
    graphdef: nnx.GraphDef
    base: Tree
    shardings: Shardings


def ensure_model(settings: ModelSettings) -> Path:
    """The Hugging Face folder of the base: as given, or imported once into the cache."""
    source = Path(settings.source)
    if (source / "config.json").exists():
        return source
    folder = cache_folder() / "models" / settings.source.replace("/", "--")
    if not (folder / RECORD).exists():
        import_model(settings.source, folder)
    return folder


def open_words(folder: Path) -> Words:
    """The tokenizer of a model folder and the chat format its template follows."""
    tokenizer = load_tokenizer(folder)
    return Words(tokenizer, detect_format(tokenizer))


def open_model(
    folder: Path,
    mesh: Mesh,
    *,
    lora: LoraConfig | None = None,
    execution: Execution = Execution(),
    dtype: str | None = None,
    rules: Rules = (),
) -> Opened:
    """Reads the base tensor by tensor onto the mesh; `rules` as in `MeshConfig`."""
    config = hf.read_config(folder)
    model = abstract(config, lora, execution, Layout(mesh, rules))
    shardings = parameter_shardings(model, mesh, rules)
    int8 = execution.base_dtype == "int8"
    if int8 and lora is None:
        raise InputError(
            "config.execution.base_dtype is 'int8', which cannot be trained; give config.adapter"
        )
    base = hf.read_params(folder, config, dtype, shardings, int8)
    return Opened(folder, config, split(model).graphdef, base, shardings)


def fingerprint(folder: Path, pattern: str) -> str:
    """SHA-256 over the names and contents of a folder's files that match `pattern`."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

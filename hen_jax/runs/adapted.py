"""A model folder, and if asked an adapter, on the devices: for what reads and does not train."""

from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Tree
from hen_jax.io import peft
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.runs.earlier import beside
from hen_jax.runs.model import BaseModel, open_model


class Adapted(NamedTuple):
    """A model on its devices; `params` and `frozen` together are its leaves."""

    mesh: Mesh
    opened: BaseModel
    params: Tree  # an adapter with the head that it brings, or all
    frozen: Tree


def open_adapted(
    folder: Path, adapter: Path | None, config: DecoderConfig, mesh: Mesh, execution: Execution
) -> Adapted:
    """The model of `config` in `folder`, in the dtype that it computes in.

    Raises:
      InputError: a folder that is no model, or an adapter that is none for it.
    """
    lora, learnt = (None, {}) if adapter is None else peft.read_adapter(adapter, config, "float32")
    dtype = execution.compute_dtype
    opened = open_model(folder, mesh, lora=lora, execution=execution, dtype=dtype, config=config)
    if lora is None:
        return Adapted(mesh, opened, opened.base, {})
    where = opened.shardings
    placed = map_with_path(lambda path, leaf: jax.device_put(leaf, where[path]), learnt)
    return Adapted(mesh, opened, placed, beside({}, opened.base).frozen)

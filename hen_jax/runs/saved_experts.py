"""The experts that a run trained side by side, read without its base."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.types import Tree
from hen_jax.io import hf
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.runs.earlier import previous_run, saved_adapters
from hen_jax.runs.model import BaseModel
from hen_jax.training.placement import parameter_shardings


class SavedExperts(NamedTuple):
    """The base's folder, and each adapter by its name."""

    base: Path
    adapters: dict[str, tuple[LoraConfig, Tree]]


def saved_experts(run: Path) -> SavedExperts:
    """What the newest checkpoint of the experts' run in folder `run` holds, as numpy arrays.

    Raises:
      InputError: no such run or no checkpoint, it trained no experts, or its base is gone or
        another one.
    """
    _, _, adapters, base = previous_run(run)
    if not adapters:
        raise InputError(f"{run} trained no experts; serve an export of it as NAME=FOLDER")
    if not base.is_dir():
        raise InputError(f"the base model of {run} is no longer at {base}; put it back there")
    config, mesh = hf.read_config(base), make_mesh(MeshConfig())
    some = next(iter(adapters.values()))
    model = abstract(config, some)
    unread = BaseModel(base, config, split(model).graphdef, {}, parameter_shardings(model, mesh))
    found = saved_adapters(run, unread, adapters)
    held = {name: jax.tree.map(np.asarray, tree) for name, tree in found.items()}
    return SavedExperts(base, {name: (lora, held[name]) for name, lora in adapters.items()})

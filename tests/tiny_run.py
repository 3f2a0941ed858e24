"""A run of the tiny model: in this process, or as the command that a launcher would start."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hen_jax.core.mesh import make_mesh
from hen_jax.recipes.table import stage_of
from hen_jax.runs import train
from hen_jax.runs.model import ensure_model
from hen_jax.runs.settings import settings
from hen_jax.runs.stage import Job, Stage
from hen_jax.steps.state import State

COMMAND = """
import json, sys
from pathlib import Path
from typing import Any
from ml_collections import ConfigDict
from hen_jax.verbs.run import launch
config, workdir = ConfigDict(json.loads(sys.argv[1])), Path(sys.argv[2])
launch.load_config = lambda *_: config
from hen_jax import cli
sys.exit(cli.main(["run", "--config=tiny", f"--workdir={workdir}"]))
"""


def config(base: Path, **changes) -> ConfigDict:
    fields = {
        "recipe": "sft",
        "model": {"source": str(base)},
        "sources": ({"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},),
        "adapter": {"rank": 2, "alpha": 4.0},
        "data": {"row_length": 256, "batch_size": 8},
        "optimizer": {"learning_rate": 1e-2},
        "loop": {"checkpoint_every": 3},
        "epochs": 0.25,
    }
    return ConfigDict(fields | changes)


def run(base: Path, workdir: Path, **changes) -> State:
    stage, parsed = read(config(base, **changes))
    return train.run(stage, parsed, workdir)


def open_job(base: Path, workdir: Path, **changes) -> Job:
    """The run before its first update."""
    stage, parsed = read(config(base, **changes))
    mesh = make_mesh(parsed.mesh)
    return train.open_job(stage, parsed, mesh, ensure_model(parsed.model), workdir)


def read(node: ConfigDict) -> tuple[Stage, Any]:
    """The stage that a config names, and its settings."""
    stage = stage_of(node.recipe)
    return stage, settings(stage.settings, node)


def command(base: Path, workdir: Path, **changes) -> list[str]:
    """`hen run` with that config; its exit code is the command's."""
    fields = json.dumps(config(base, **changes).to_dict())
    return [sys.executable, "-c", COMMAND, fields, str(workdir)]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a process on the CPU with a cache of its own in `folder`."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "HEN_CACHE": str(folder / "cache")} | more

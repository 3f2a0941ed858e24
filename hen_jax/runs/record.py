"""The run record: what a checkpoint was made from, kept beside it."""

import dataclasses
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.folders import RUN_KIND, require_run_folder
from hen_jax.core.records import require_record, write_record
from hen_jax.models.config import DecoderConfig, LoraConfig
from hen_jax.runs.model import TEXT_FILES, WEIGHT_FILES, fingerprint
from hen_jax.training.locks import LOCK

PACKAGES = (
    "hen_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "transformers",
)
"""Whose versions are recorded: what a result can depend on."""

MAY_CHANGE = (
    "config.mesh",
    "config.microbatches",
    "config.logit_chunk",
    "config.execution.remat",
    "config.data.prefetch",
    "config.loop",
    "config.guard",
    "base.folder",
)
"""Where and how a run goes on; what it computes, but for rounding, is the same."""


def run_record(
    config: Any,
    base: Path,
    model: DecoderConfig,
    method: str,
    adapters: Mapping[str, LoraConfig] | None = None,
) -> dict[str, Any]:
    """The record of a run with the settings `config` on the base model in folder `base`.

    `method` says in words how it trains, and `adapters` what trains side by side, so that whoever
    exports it need not know its stage.
    """
    several = {name: dataclasses.asdict(lora) for name, lora in (adapters or {}).items()}
    return ({"adapters": several} if several else {}) | {
        "config": dataclasses.asdict(config),
        "method": method,
        "base": {
            "folder": str(base.absolute()),
            "weights_sha256": fingerprint(base, WEIGHT_FILES),
            "tokenizer_sha256": fingerprint(base, TEXT_FILES),
            "model": dataclasses.asdict(model),
        },
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "commit": commit(),
    }


_SHAPE = {
    "method?": (None, str),
    "config": {"adapter?": (None, dict), "start?": (None, str)},
    "adapters?": (None, {...: dict}),
    "base": {
        "folder": str,
        "weights_sha256": str,
        "model": {"score_head?": (None, bool), "score_labels?": (None, [str])},
    },
}


def read_run_record(folder: Path) -> dict[str, Any]:
    """The record of the run in a folder.

    Raises:
      InputError: there is none, or it is damaged.
    """
    return require_record(folder, RUN_KIND, _SHAPE)


def claim(workdir: Path, record: dict[str, Any]) -> None:
    """Makes `workdir` the folder of this run, or finds that it is already.

    A run may go on elsewhere: on another mesh, with another base folder of the same weights.

    Raises:
      InputError: the folder is not ours, its record is damaged, or it holds a run with other
        settings or another base.
    """
    require_run_folder(workdir, besides=(LOCK,))
    if not (workdir / RECORD).exists():
        write_record(workdir, RUN_KIND, record, files=False)
        return
    before, now = read_run_record(workdir), read_back({"kind": RUN_KIND, **record})
    for part in ("config", "base"):
        change = _difference(before[part], now[part], part)
        if change:
            raise InputError(
                f"{workdir} holds a run with other settings ({change}); "
                "give another --workdir, or the settings it was started with"
            )
    if before != now:
        write_record(workdir, RUN_KIND, record, files=False)


def decisive(value: Any, path: str = "config") -> Any:
    """A run's settings, as JSON, without those that `MAY_CHANGE`."""
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if f"{path}.{key}" not in MAY_CHANGE}
    return {key: decisive(item, f"{path}.{key}") for key, item in kept.items()}


def read_back(value: Any) -> Any:
    """`value` as JSON gives it back: tuples as lists."""
    if isinstance(value, dict):
        return {key: read_back(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read_back(item) for item in value]
    return value


def _difference(before: Any, now: Any, path: str) -> str | None:
    if path in MAY_CHANGE:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            found = _difference(before.get(key), now.get(key), f"{path}.{key}")
            if found:
                return found
        return None
    return None if before == now else f"{path} was {before!r}, is {now!r}"


def commit() -> str | None:
    """The commit of the source tree, if hen_jax runs from one and git is there to ask.

    Installed into an environment inside another project, that project's commit would be a lie.
    """
    tree = Path(__file__).resolve().parents[2]
    if not (tree / ".git").exists() or shutil.which("git") is None:
        return None
    found = subprocess.run(
        ["git", "-C", str(tree), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None

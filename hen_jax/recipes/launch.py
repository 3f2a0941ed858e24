"""`hen run`: a config file and overrides -> the recipe it names."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hen_jax.core.errors import InputError
from hen_jax.io.packages import cache_folder
from hen_jax.recipes.finished import say_finished
from hen_jax.recipes.table import stage_of
from hen_jax.runs import train
from hen_jax.runs.settings import settings
from hen_jax.training.devices import start
from hen_jax.training.locks import only_run
from hen_jax.training.processes import ending_together
from hen_jax.training.signals import stop_early


def run(config_file: str, overrides: list[str], workdir: Path) -> None:
    """Runs the recipe of `config_file` (`FILE.py` or `FILE.py:ARGUMENT`) in `workdir`.

    Args:
      config_file: a module whose `get_config` returns a `ConfigDict`.
      overrides: flags such as `--config.optimizer.learning_rate=1e-4`.
      workdir: where everything is written; a second run goes on there.

    Raises:
      InputError: no such file or field, a value of the wrong type, or what the recipe refuses.
    """
    config = load_config(config_file, overrides)
    stage = stage_of(config.get("recipe"))
    parsed = settings(stage.settings, config)
    with ending_together(), stop_early():
        start(cache_folder() / "xla")
        with stop_early(), only_run(workdir):  # again: jax took SIGTERM when it joined others
            train.run(stage, parsed, workdir)
            say_finished(workdir)


def load_config(config_file: str, overrides: list[str]) -> ConfigDict:
    """The config of a file, with overrides such as `--config.data.batch_size=8` applied.

    A value is read as a Python literal, and as plain text where it is none.
    """
    file, _, variant = config_file.partition(":")
    if not Path(file).is_file():
        raise InputError(f"{file}: no such config file")
    config = _from_file(file, variant)
    for override in overrides:
        path, equals, value = override.removeprefix("--config.").partition("=")
        if not equals:
            raise InputError(f"{override}: give a value, as in --config.{path}=VALUE")
        _override(config, path, value)
    return config


def _override(config: ConfigDict, path: str, text: str) -> None:
    *parents, name = path.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, ConfigDict) else None
    if not isinstance(node, ConfigDict) or name not in node:
        raise InputError(f"config.{path}: no such field; the config has {sorted(_fields(config))}")
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    with node.ignore_type():  # `settings` checks types, and names the field
        node[name] = value


def _fields(config: ConfigDict, path: str = "") -> list[str]:
    """Dotted names of all leaves."""
    return [
        name
        for key, value in config.items()
        for name in (
            _fields(value, f"{path}{key}.") if isinstance(value, ConfigDict) else [f"{path}{key}"]
        )
    ]


def _from_file(file: str, variant: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_config = module.get_config
    except (AttributeError, ImportError, SyntaxError) as error:
        raise InputError(f"{file}: {error}; it must define get_config") from None
    return get_config(variant) if variant else get_config()

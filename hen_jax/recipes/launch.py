"""`hen run`: a config file and overrides -> the recipe it names."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from hen_jax.io.packages import cache_folder
from hen_jax.recipes.config_files import parsed_value, plain_config, read_run_config, with_overrides
from hen_jax.recipes.finished import say_finished
from hen_jax.recipes.table import stage_of
from hen_jax.runs import train
from hen_jax.runs.settings import settings
from hen_jax.training.devices import start
from hen_jax.training.locks import only_run
from hen_jax.training.processes import ending_together
from hen_jax.training.signals import stop_early


def launch(config_file: str, overrides: list[str], workdir: Path) -> None:
    """Runs the recipe of `config_file` (`FILE.py`, `sft`, `sft:tiny`) in `workdir`.

    Args:
      config_file: a built-in name, or a module whose `get_config` returns a `ConfigDict`.
      overrides: flags such as `--config.optimizer.learning_rate=1e-4`.
      workdir: where everything is written; a second run goes on there.

    Raises:
      InputError: no such file or field, a value of the wrong type, or what the recipe refuses.
    """
    config = load_config(config_file, overrides)
    stage = stage_of(config.get("recipe"))
    read = settings(stage.settings, config)
    with ending_together(), stop_early():
        start(cache_folder() / "xla")
        with stop_early(), only_run(workdir):  # again: jax took SIGTERM when it joined others
            train.run(stage, read, workdir)
            say_finished(workdir)


def load_config(config_file: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of a file or built-in name, with overrides of any field of its recipe's settings.

    Raises:
      InputError: no such file, variant, recipe or field.
    """
    config = read_run_config(config_file)
    named = [one for one in overrides if one.startswith("--config.recipe=")]
    for one in named:
        config = ConfigDict(
            plain_config(config) | {"recipe": parsed_value(str, one.partition("=")[2])}
        )
    others = [one for one in overrides if one not in named]
    if not others:
        return config
    return with_overrides(config, [stage_of(config.get("recipe")).settings], others)

"""`hen run`: a config file and overrides -> the recipe it names."""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from hen_jax.core.errors import InputError
from hen_jax.io.packages import cache_folder
from hen_jax.recipes import quickstart, sft
from hen_jax.recipes.settings import settings
from hen_jax.training.devices import start

RECIPES = {"sft": sft.run, "quickstart": quickstart.run}
"""Name of a recipe (`config.recipe`) -> what runs it."""


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
    parsed = settings(sft.SftSettings, config)
    start(cache_folder() / "xla")
    RECIPES[parsed.recipe](parsed, workdir)


def load_config(config_file: str, overrides: list[str]) -> ConfigDict:
    """The config of a file with overrides applied (ml_collections' own flag syntax)."""
    if not Path(config_file.split(":")[0]).is_file():
        raise InputError(f"{config_file.split(':')[0]}: no such config file")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        rest = values(["hen", f"--config={config_file}", *overrides])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{config_file}: {error}") from None
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is not understood; override with --config.FIELD=VALUE")
    config = values["config"].value
    assert isinstance(config, ConfigDict)  # of absl's flag, which is untyped
    return config

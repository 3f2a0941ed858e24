"""`hen run`: a config file and overrides -> the recipe it names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hen_jax.core.errors import InputError
from hen_jax.io.packages import cache_folder
from hen_jax.recipes.table import PIPELINE, stage_of
from hen_jax.runs import train
from hen_jax.runs.config_files import parsed_value, plain_config, read_run_config, with_overrides
from hen_jax.runs.settings import settings
from hen_jax.training.devices import start
from hen_jax.training.locks import only_run
from hen_jax.training.processes import ending_together
from hen_jax.training.signals import stop_early
from hen_jax.verbs.run.finished import say_finished


def launch(config_file: str, overrides: list[str], workdir: Path, only: str | None = None) -> None:
    """Runs the recipe of `config_file` (`FILE.py`, `sft`, `sft:tiny`) in `workdir`.

    Args:
      config_file: a built-in name, or a module whose `get_config` returns a `ConfigDict`.
      overrides: flags such as `--config.optimizer.learning_rate=1e-4`.
      workdir: where everything is written; a second run goes on there.
      only: of a pipeline this step alone, by its name.

    Raises:
      InputError: no such file or field, a value of the wrong type, or what the recipe refuses.
    """
    config = load_config(config_file, overrides)
    if config.get("recipe") == PIPELINE:
        from hen_jax.verbs.pipeline.pipeline import run_pipeline  # which loads configs, too

        run_pipeline(settings(settings_of(PIPELINE), config), workdir, only)
        return
    if only is not None:
        raise InputError(f"--stage={only}: {config_file} is one stage, and no pipeline of several")
    stage = stage_of(config.get("recipe"))
    read = settings(stage.settings, config)
    with ending_together(), stop_early():
        start(cache_folder() / "xla")
        with stop_early(), only_run(workdir):  # again: jax took SIGTERM when it joined others
            train.run(stage, read, workdir)
            say_finished(workdir)


def settings_of(name: Any) -> type:
    """The dataclass of a recipe's settings; raises `InputError` where there is no such recipe."""
    if name == PIPELINE:
        from hen_jax.verbs.pipeline.settings import PipelineSettings  # which loads configs, too

        return PipelineSettings
    return stage_of(name).settings


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
    if config.get("recipe") == PIPELINE:
        config, others = with_fields_of_steps(config, others)
    return with_overrides(config, [settings_of(config.get("recipe"))], others)


def with_fields_of_steps(
    config: ConfigDict, overrides: Sequence[str]
) -> tuple[ConfigDict, list[str]]:
    """A pipeline's config with the overrides that begin with a step's name, and the others.

    `--config.sft.epochs=0.5` becomes one more of the fields that the step `sft` sets.
    """
    node = plain_config(config)
    steps = {step["name"]: dict(step) for step in node["stages"]}
    others = []
    for one in overrides:
        name, dot, field = one.removeprefix("--config.").partition(".")
        if dot and name in steps:
            steps[name]["fields"] = (*steps[name].get("fields", ()), field)
        else:
            others.append(one)
    return ConfigDict(node | {"stages": tuple(steps.values())}), others

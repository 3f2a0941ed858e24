"""`hen run`: its flags, and what it calls."""

import argparse
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import CONFIG_HELP


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("run", help="run a recipe; again, to go on where it stopped")
    verb.add_argument("--config", required=True, help=CONFIG_HELP)
    verb.add_argument("--workdir", type=Path, help="where everything is written")
    verb.add_argument("--print-config", action="store_true", help="every field; nothing is run")
    verb.add_argument(
        "--profile",
        type=int,
        nargs="?",
        const=5,
        metavar="UPDATES",
        help="a profiler's trace of so many updates (5), in profile/ of the work directory",
    )
    verb.add_argument("--stage", metavar="NAME", help="of a pipeline this step alone")
    verb.epilog = "Set any field: --config.optimizer.learning_rate=1e-4 (docs/settings.md)"
    verb.set_defaults(verb=run_verb, takes_config=True)


def run_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen run`."""
    from hen_jax.core.errors import InputError

    if chosen.print_config:
        from hen_jax.verbs.run.show_config import show_config

        show_config(chosen.config, overrides)
        return
    if chosen.workdir is None:
        raise InputError("--workdir=DIR is missing: where everything is written")
    with _stopping_while_loading():
        with _nothing_collected():
            from hen_jax.verbs.run.launch import launch

        profile = [f"--config.loop.profile={chosen.profile}"] if chosen.profile else []
        launch(chosen.config, [*overrides, *profile], chosen.workdir, chosen.stage)


@contextmanager
def _stopping_while_loading() -> Iterator[None]:
    """SIGTERM in the seconds until jax is loaded ends as it does later (`training.signals`)."""
    from hen_jax.core.errors import StoppedEarlyError

    def stop(*_: object) -> None:
        raise StoppedEarlyError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Loads modules without looking for garbage among what they make: all of it stays.

    A tenth of the time to the first update. What was loaded is not looked through later, either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

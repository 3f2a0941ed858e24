"""What each verb of `hen` does: from its flags to a call; what it needs is loaded in the call."""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hen_jax.recipes.generate import Request


def import_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen import`."""
    from hen_jax.runs.import_model import import_model

    import_model(chosen.source, chosen.out, chosen.dtype)


def run_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen run`."""
    from hen_jax.core.errors import InputError

    if chosen.print_config:
        from hen_jax.recipes.show_config import show_config

        show_config(chosen.config, overrides)
        return
    if chosen.workdir is None:
        raise InputError("--workdir=DIR is missing: where everything is written")
    with _stopping_while_loading():
        with _nothing_collected():
            from hen_jax.recipes.launch import launch

        profile = [f"--config.loop.profile={chosen.profile}"] if chosen.profile else []
        launch(chosen.config, [*overrides, *profile], chosen.workdir)


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


def config_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen config`."""
    from hen_jax.recipes.show_config import list_configs, show_config

    if chosen.config is None:
        list_configs()
    else:
        show_config(chosen.config, overrides)


def generate_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen generate`."""
    import dataclasses

    from hen_jax.core.errors import InputError
    from hen_jax.recipes.generate import generate_replies

    request = dataclasses.replace(
        _request(chosen),
        prompts=tuple(chosen.prompt),
        messages=chosen.messages,
        n=chosen.n,
        json=chosen.json,
        raw=chosen.raw,
    )
    if (chosen.input is None) != (chosen.out is None):
        raise InputError("--input and --out go together: prompts from one file, replies to another")
    if chosen.input is None:
        generate_replies(request)
    else:
        from hen_jax.recipes.generate_file import generate_file

        generate_file(request, chosen.input, chosen.out)


def chat_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen chat`."""
    from hen_jax.recipes.chat import chat

    chat(_request(chosen))


def _request(chosen: argparse.Namespace) -> "Request":
    """Who answers, and how."""
    from hen_jax.recipes.generate import Request

    return Request(
        model=chosen.model,
        backend=chosen.backend,
        adapter=chosen.adapter,
        system=chosen.system,
        max_new_tokens=chosen.max_new_tokens,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        stop=tuple(chosen.stop),
        seed=chosen.seed,
        dtype=chosen.dtype,
        at_once=chosen.at_once,
        per_minute=chosen.per_minute,
        timeout=chosen.timeout,
        tries=chosen.tries,
    )


def show_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen show`."""
    from hen_jax.core.errors import InputError
    from hen_jax.recipes.show import from_config, from_file, show

    colour = sys.stdout.isatty() and not chosen.no_color and "NO_COLOR" not in os.environ
    if chosen.config is not None:
        show(from_config(chosen.config, overrides, chosen.example, colour=colour))
    elif None not in (chosen.model, chosen.data, chosen.schema):
        wanted = from_file(
            chosen.model,
            chosen.data,
            chosen.schema,
            chosen.example,
            colour=colour,
            columns=dict(chosen.columns),
        )
        show(wanted)
    else:
        raise InputError("give --config, or --model, --data and --schema")


def export_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen export`."""
    from hen_jax.recipes.export import describe_export, export
    from hen_jax.recipes.export_gguf import export_gguf

    write = export_gguf if chosen.format.startswith("gguf") else export
    given = chosen.run, chosen.out, chosen.format, chosen.dtype, chosen.base_model, chosen.expert
    exported = write(*given)
    print(describe_export(exported))


def score_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen score`."""
    from hen_jax.recipes.score import Scoring, score

    score(
        Scoring(
            model=chosen.model,
            input=chosen.input,
            schema=chosen.schema,
            out=chosen.out,
            adapter=chosen.adapter,
            columns=dict(chosen.columns),
            batch_size=chosen.batch_size,
            dtype=chosen.dtype,
        )
    )


def plan_verb(chosen: argparse.Namespace, overrides: list[str]) -> None:
    """`hen plan`."""
    from hen_jax.recipes.plan import plan

    plan(chosen.config, overrides, chosen.topology, chosen.stage, chosen.json, chosen.search)


def doctor_verb(chosen: argparse.Namespace, _: list[str]) -> int:
    """`hen doctor`; 2 if something is not well."""
    from hen_jax.recipes.doctor import doctor

    return 0 if doctor(dry=chosen.dry) else 2


def judge_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen judge`."""
    from hen_jax.recipes.judge import judge
    from hen_jax.recipes.judge_settings import from_flags

    judge(from_flags(vars(chosen)))


def validate_verb(chosen: argparse.Namespace, _: list[str]) -> int:
    """`hen data validate`; 1 if a record is bad."""
    from hen_jax.recipes.data import validate

    columns = dict(chosen.columns)
    return 1 if validate(chosen.file, chosen.schema, chosen.out, columns).problems else 0


def stats_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data stats`."""
    from hen_jax.recipes.data_stats import stats

    stats(chosen.file, chosen.schema, chosen.out, chosen.model, dict(chosen.columns))


def scrub_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data scrub`."""
    from hen_jax.recipes.data import scrub

    scrub(chosen.file, chosen.out)


def schemas_verb(_: argparse.Namespace, __: list[str]) -> None:
    """`hen data schemas`."""
    from hen_jax.recipes.data_schemas import markdown

    print(markdown(), end="")


def sense7_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data sense7`."""
    from hen_jax.recipes.data_sense7 import analyse

    analyse(chosen.file, chosen.out, chosen.contexts, chosen.seed)


def ratings_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen data ratings`."""
    from hen_jax.recipes.data_rating_sheets import run_ratings

    run_ratings(chosen)


OF_A_CONFIG = (run_verb, plan_verb, show_verb, config_verb)
"""The verbs that take `--config.FIELD=VALUE`."""

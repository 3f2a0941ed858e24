"""`hen build`: training data of methods; its flags, and what it calls."""

import argparse
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import add_endpoint, add_speaker
from hen_jax.commands.request import request_of


def add(verbs: Any) -> None:
    """The verb."""
    parts = verbs.add_parser("build", help="training data of methods").add_subparsers(
        required=True, metavar="WHAT"
    )
    verb = _part(parts, "ebg", "analysis and reply, for two stages of SFT", ebg_verb)
    verb.add_argument("--label", default="emotion", help="which label of the schema")
    verb.add_argument("--labels", choices=("ebg", "hed"), default="ebg", help="which emotions")
    _speaker(verb)

    verb = _part(parts, "tools", "traces in which a tool is asked", tools_verb)
    verb.add_argument("--knowledge", type=Path, help="event, relation, tail by tabs")
    verb.add_argument("--faq", type=Path, help="question, answer by tabs")
    verb.add_argument("--least", type=float, default=0.1, help="gain that is worth a call")

    verb = _part(parts, "muffin", "candidates with feedback in three facets", muffin_verb)
    verb.add_argument("--candidates", type=int, default=10)
    verb.add_argument("--judge", help="model:FOLDER, endpoint:URL#MODEL, replay:FILE; else itself")
    verb.add_argument("--vote", choices=("and", "majority"), default="and")
    _speaker(verb)

    verb = _part(parts, "traits", "a speaker's traits and expected reactions", traits_verb)
    verb.add_argument("--space", choices=("big5", "mbti"), default="big5")
    verb.add_argument("--identifier", type=Path, help="the folder of an emotion identifier")
    verb.add_argument("--lexicon", type=Path, help="or a file of word, emotion, 0 or 1 by tabs")

    verb = parts.add_parser("distil", help="SFT rows and pairs of a file of rated replies")
    verb.add_argument("--input", required=True, type=Path)
    verb.add_argument("--writer", default="chatgpt", help="whose replies are learnt")
    verb.add_argument("--out", required=True, type=Path)
    verb.set_defaults(verb=distil_verb)

    verb = _part(parts, "select", "dialogues kept by quality and diversity", select_verb)
    verb.add_argument("--seed-set", required=True, type=Path, help="what the dialogues go back to")
    verb.add_argument("--seed-schema", required=True)
    verb.add_argument("--threshold", type=float, default=50.0, help="least quality, cosine x 100")
    verb.add_argument("--share", type=float, default=0.5, help="that diversity keeps")
    verb.add_argument(
        "--most-synthetic", type=float, default=1.0, help="share of new among seed and new, at most"
    )
    _speaker(verb)


def _part(parts: Any, name: str, about: str, call: Any) -> argparse.ArgumentParser:
    verb = parts.add_parser(name, help=about)
    verb.add_argument("--input", required=True, type=Path, help="dialogues that end with a reply")
    verb.add_argument("--schema", required=True, help="messages, completion, hed, ...")
    verb.add_argument("--out", required=True, type=Path, help="a folder")
    verb.set_defaults(verb=call)
    return verb


def _speaker(verb: argparse.ArgumentParser) -> None:
    add_speaker(verb)
    add_endpoint(verb)


def ebg_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen build ebg`."""
    from hen_jax.verbs.methods.build import build_ebg

    given = {"label": chosen.label, "labels": chosen.labels}
    build_ebg(request_of(chosen), chosen.input, chosen.schema, chosen.out, **given)


def tools_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen build tools`."""
    from hen_jax.verbs.methods.build import build_tools

    given = {"knowledge": chosen.knowledge, "faq": chosen.faq, "least": chosen.least}
    build_tools(chosen.input, chosen.schema, chosen.out, **given)


def muffin_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen build muffin`."""
    import dataclasses

    from hen_jax.verbs.methods.build_muffin import build_muffin

    request = request_of(chosen)
    judge = (
        request
        if chosen.judge is None
        else dataclasses.replace(request, model=None, adapter=None, backend=chosen.judge)
    )
    build_muffin(
        request,
        dataclasses.replace(judge, temperature=0.0, max_new_tokens=16),
        chosen.input,
        chosen.schema,
        chosen.out,
        candidates=chosen.candidates,
        vote=chosen.vote,
    )


def traits_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen build traits`."""
    from hen_jax.verbs.methods.build import build_traits
    from hen_jax.verbs.methods.parts import emotion_model

    model = emotion_model(chosen.identifier, chosen.lexicon)
    given = {"space": chosen.space, "model": model}
    build_traits(chosen.input, chosen.schema, chosen.out, **given)


def distil_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen build distil`."""
    from hen_jax.verbs.methods.build import build_distil

    build_distil(chosen.input, chosen.out, writer=chosen.writer)


def select_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen build select`."""
    from hen_jax.verbs.methods.select import Selecting, select, select_by_quality

    request = request_of(chosen)
    selecting = Selecting(
        chosen.input,
        chosen.schema,
        chosen.seed_set,
        chosen.seed_schema,
        chosen.out,
        chosen.threshold,
        chosen.share,
        chosen.seed,
        chosen.most_synthetic,
    )
    if request.model is None and request.backend is None:
        select(selecting, None)
    else:
        select_by_quality(selecting, request)

"""`hen serve`: its flags, and what it calls."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hen_jax.commands.flags import CACHE_DTYPES

_PACKAGES = ("prometheus_client", "sse_starlette", "starlette", "uvicorn")
"""Of the extra `serve`."""


def add(verbs: Any) -> None:
    """The verb."""
    verb = verbs.add_parser("serve", help="a model and its experts behind the OpenAI API")
    verb.add_argument("--model", type=Path, help="a Hugging Face folder")
    verb.add_argument("--run", type=Path, help="a run of experts: its base and all of them")
    verb.add_argument("--expert", action="append", default=[], metavar="NAME=FOLDER",
                      help="a PEFT adapter, once or more")  # fmt: skip
    verb.add_argument("--router", type=Path, help="a router's folder: it answers as model auto")
    verb.add_argument("--routing", choices=("top1", "soft"), default="top1")
    verb.add_argument("--guard", action="store_true", help="each reply passes a guard as a whole")
    verb.add_argument("--place", help="of the guard's resources: US, GB, CN ...; by the language")
    verb.add_argument("--name", help="what clients call the base; its folder's name")
    verb.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in")
    verb.add_argument("--port", type=int, default=8000, help="0: any that is free")
    verb.add_argument("--rows", type=int, default=8, help="replies written at a time")
    verb.add_argument("--places", type=int, help="tokens of a conversation, reply included")
    verb.add_argument("--chunk", type=int, default=4, help="tokens of each row per step")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    verb.add_argument("--cache-dtype", choices=CACHE_DTYPES, help="of keys and values; as --dtype")
    verb.add_argument(
        "--max-experts", type=int, help="places; those beyond the given ones are for later"
    )
    verb.add_argument("--max-rank", type=int, help="of an expert")
    verb.add_argument("--queue", type=int, default=64, help="replies that may wait; then 429")
    verb.add_argument("--timeout", type=float, default=600, help="seconds of one request")
    verb.add_argument("--drain", type=float, default=30, help="seconds to end in at SIGTERM")
    verb.add_argument("--log-text", action=argparse.BooleanOptionalAction, default=False,
                      help="whether the log holds what is said")  # fmt: skip
    verb.add_argument("--warm-up", action=argparse.BooleanOptionalAction, default=True,
                      help="compile before the first request")  # fmt: skip
    verb.epilog = "A key that clients must bring: HEN_SERVE_KEY in the environment."
    verb.set_defaults(verb=serve_verb)


def serve_verb(chosen: argparse.Namespace, _: list[str]) -> None:
    """`hen serve`."""
    _require_extra()
    from hen_jax.serving.served import ServerSettings
    from hen_jax.verbs.serve.model import ServeRequest
    from hen_jax.verbs.serve.serve import serve

    serve(
        ServeRequest(
            model=chosen.model,
            run=chosen.run,
            experts=tuple(chosen.expert),
            name=chosen.name,
            host=chosen.host,
            port=chosen.port,
            rows=chosen.rows,
            places=chosen.places,
            chunk=chosen.chunk,
            dtype=chosen.dtype,
            cache_dtype=chosen.cache_dtype,
            max_experts=chosen.max_experts,
            max_rank=chosen.max_rank,
            warm_up=chosen.warm_up,
            router=chosen.router,
            routing=chosen.routing,
            guarded=chosen.guard,
            place=chosen.place,
            settings=ServerSettings(
                queue=chosen.queue,
                timeout=chosen.timeout,
                drain=chosen.drain,
                log_text=chosen.log_text,
            ),
        )
    )


def _require_extra() -> None:
    from hen_jax.core.errors import InputError

    if lacking := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(f"{lacking[0]} is not installed; pip install 'hen_jax[serve]'")

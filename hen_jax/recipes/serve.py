"""`hen serve`: a model and its experts behind the OpenAI API, until it is told to stop."""

import dataclasses
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax

from hen_jax.core.errors import InputError
from hen_jax.io import companions, hf, peft
from hen_jax.io.packages import cache_folder
from hen_jax.models.config import DecoderConfig
from hen_jax.runs.decoding import read_weights, read_with_room
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.saved_experts import saved_experts
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Slots
from hen_jax.serving.adapters_api import require_name
from hen_jax.serving.admission import Admission
from hen_jax.serving.asks import MOST_BIASES, MOST_TOP
from hen_jax.serving.experts import Experts
from hen_jax.serving.meters import Meters
from hen_jax.serving.served import Route, Served, ServerSettings
from hen_jax.serving.shelf import Adapter, Shelf
from hen_jax.serving.worker import Worker
from hen_jax.text.chat import stop_ids
from hen_jax.text.token_bytes import token_bytes

KEY = "HEN_SERVE_KEY"
"""The environment's variable with the key that clients must bring."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True)
class ServeRequest:
    """One `hen serve`; fields carry the names of its flags."""

    model: Path | None = None  # a Hugging Face folder; None: the base of `run`
    run: Path | None = None  # a run of experts
    experts: tuple[str, ...] = ()  # NAME=FOLDER of PEFT adapters
    name: str | None = None  # of the base; None: its folder's
    host: str = "127.0.0.1"
    port: int = 8000
    rows: int = 8
    places: int | None = None  # tokens of a conversation; None: 2048, or what the model has
    chunk: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_experts: int | None = None  # None: the given ones and four more
    max_rank: int | None = None  # None: the largest of the given ones, 16 at least
    warm_up: bool = True
    settings: ServerSettings = dataclasses.field(default_factory=ServerSettings)


def serve(request: ServeRequest) -> None:
    """Serves until SIGTERM or Ctrl-C, then lets replies under way end.

    Raises:
      InputError: a folder that is no model or adapter, a setting out of range, or an address that
        cannot be used.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    local = request.host in LOOPBACK
    key = os.environ.get(KEY) or None
    settings = dataclasses.replace(request.settings, loading=local or key is not None)
    with _bound(request.host, request.port) as listening:
        served = open_served(dataclasses.replace(request, settings=settings), key=key)
        try:
            _say(served, request.host, listening.getsockname()[1], local)
            _run(served, listening, local)
        finally:
            served.worker.stop()
    print("stopped; all replies under way were ended")


def open_served(
    request: ServeRequest, key: str | None = None, route: Route | None = None
) -> Served:
    """The model of a request, its experts in their places, ready to be asked.

    Raises:
      InputError: as `serve`.
    """
    folder, adapters = _adapters(request)
    config = hf.read_config(folder)
    if config.score_head:
        raise InputError(f"{folder} is a reward model, which says nothing; see `hen score`")
    name = request.name or folder.resolve().name
    shelf = _shelf(request, adapters)
    tokenizer = known_tokenizer(folder)
    ends = companions.all_ends(folder, stop_ids(tokenizer))
    slots = _slots(request, config, shelf, len(ends))
    backend = tokenizer.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def decode(ids: Any) -> str:
        return backend.decode(list(ids), skip_special_tokens=True)

    weights = (
        read_weights(folder, config, slots.places, dtype=request.dtype)
        if shelf is None
        else read_with_room(folder, config, slots.places, shelf.lora, request.dtype)
    )
    engine, experts = Engine(weights, slots, key="base", decode=decode), Experts(shelf)
    for expert, (adapter, source) in adapters.items():
        require_name(expert, name)
        experts.load(engine, expert, adapter, source)
    if request.warm_up:
        warm_up(engine)
    worker = Worker(engine, experts.prepared)
    return Served(
        name=name,
        created=int(time.time()),
        tokenizer=tokenizer,
        decode=decode,
        bytes_of=token_bytes(backend),
        ends=ends,
        vocabulary=config.vocab_size,
        slots=slots,
        worker=worker,
        experts=experts,
        admission=Admission(slots.rows, request.settings.queue),
        meters=Meters(slots.rows, lambda: len(engine.writing), lambda: len(engine.waiting)),
        texts=ThreadPoolExecutor(1),
        settings=request.settings,
        log=_log,
        read_adapter=lambda path: Adapter(*peft.read_adapter(path, config, "float32")),
        route=route,
        key=key,
    )


def warm_up(engine: Engine) -> None:
    """Compiles what most requests need, so that the first of them does not wait for it."""
    greedy, slots = Sampling(temperature=0.0), engine.slots
    largest = slots.prefill[-1]
    for behind in (0, largest):
        for size in slots.prefill:
            if behind + size + 3 < slots.places:
                # The first token differs, or the beginning would be taken from another slot.
                prompt = (size % 7, *[1] * (behind + size))
                engine.run([Request(prompt, 2, sampling=greedy, tops=False)])


def _adapters(request: ServeRequest) -> tuple[Path, dict[str, tuple[Adapter, str]]]:
    """The base's folder, and the adapters by name, each with where it comes from."""
    found: dict[str, tuple[Adapter, str]] = {}
    base = request.model
    if request.run is not None:
        saved = saved_experts(request.run)
        if base is not None and base.resolve() != saved.base.resolve():
            raise InputError(
                f"{request.run} was trained on {saved.base}, not on {base}; leave --model out"
            )
        base = saved.base
        found = {name: (Adapter(*one), str(request.run)) for name, one in saved.adapters.items()}
    if base is None:
        raise InputError("give --model FOLDER, or --run FOLDER of a run of experts")
    config = hf.read_config(base)
    for line in request.experts:
        name, folder = named_path(line)
        if name in found:
            raise InputError(f"two experts are called {name!r}")
        found[name] = Adapter(*peft.read_adapter(folder, config, "float32")), str(folder)
    return base, found


def named_path(line: str) -> tuple[str, Path]:
    """`NAME=FOLDER`, taken apart. Raises `InputError`."""
    name, _, folder = line.partition("=")
    if not name or not folder:
        raise InputError(f"--expert {line!r}: give NAME=FOLDER, such as distress=exports/distress")
    return name, Path(folder)


def _shelf(request: ServeRequest, adapters: Mapping[str, tuple[Adapter, str]]) -> Shelf | None:
    places = len(adapters) + 4 if request.max_experts is None else request.max_experts
    if places < len(adapters):
        raise InputError(
            f"--max-experts is {places}, but {len(adapters)} experts are given; raise it"
        )
    largest = max((one.lora.rank for one, _ in adapters.values()), default=0)
    rank = max(16, largest) if request.max_rank is None else request.max_rank
    return Shelf(places, rank) if places else None


def _slots(request: ServeRequest, config: DecoderConfig, shelf: Shelf | None, ends: int) -> Slots:
    places = min(2048, config.max_length) if request.places is None else request.places
    if places > config.max_length:
        raise InputError(f"--places is {places}; the model has {config.max_length} positions")
    return Slots(
        request.rows,
        places,
        request.chunk,
        stops=ends,
        biases=MOST_BIASES,
        top=min(MOST_TOP, config.vocab_size),
        columns=0 if shelf is None else shelf.columns,
    )


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {host} port {port} ({error}); give another --port, or --port 0"
            ) from None
        yield listening


def _run(served: Served, listening: socket.socket, local: bool) -> None:
    import uvicorn

    from hen_jax.serving.app import app_of

    config = uvicorn.Config(
        app_of(served, (*LOOPBACK, "[::1]") if local else ("*",)),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=int(served.settings.drain) + 1,
    )
    # uvicorn ends by the signal that it was told to stop by; a stop that was asked for is no error.
    with _heeding(lambda: None):
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _heeding(stop: Callable[[], None]) -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C call `stop` unless somebody else handles them."""
    before = {
        number: signal.signal(number, lambda *_: stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(served: Served, host: str, port: int, local: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    experts = ", ".join(served.experts.named) or "none"
    print(f"{served.name} at http://{shown}:{port} (page) and /v1; experts: {experts}", flush=True)
    if not local and served.key is None:
        print(f"anybody who reaches {host} can ask; set {KEY} to require a key", flush=True)


def _log(line: Mapping[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)

"""A model and its experts, opened to be served: what `hen serve` reads, and what it allots."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.links import real_path
from hen_jax.io import companions, hf, peft
from hen_jax.measures.safety.guard import open_guard
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import split
from hen_jax.runs.decoding import read_weights, read_with_room
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.routing import read_router, require_base, router_on
from hen_jax.runs.saved_experts import saved_experts
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.places import padded_count
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Slots
from hen_jax.serving.adapters_api import require_name
from hen_jax.serving.admission import Admission
from hen_jax.serving.asks import MOST_BIASES, MOST_TOP
from hen_jax.serving.experts import Experts
from hen_jax.serving.meters import Meters
from hen_jax.serving.served import RouteOf, Served, ServerSettings
from hen_jax.serving.shelf import Adapter, Shelf
from hen_jax.serving.worker import Worker
from hen_jax.text.chat import stop_ids
from hen_jax.text.streaming import Decode
from hen_jax.text.token_bytes import token_bytes
from hen_jax.text.tokenizer import ChatTokenizer


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
    cache_dtype: str | None = None  # of keys and values; None: `dtype`
    max_experts: int | None = None  # None: those given; each place costs, empty or not
    max_rank: int | None = None  # None: the largest of those given, or 16
    warm_up: bool = True
    router: Path | None = None  # a router's folder: there is a model "auto"
    routing: Literal["top1", "soft"] = "top1"
    guarded: bool = False  # each reply passes a guard
    place: str | None = None  # whose resources the guard names; None: by the language
    settings: ServerSettings = dataclasses.field(default_factory=ServerSettings)


def open_served(
    request: ServeRequest,
    key: str | None = None,
    log: Callable[[Mapping[str, Any]], None] = print,
) -> Served:
    """The model of a request, its experts in their places, ready to be asked.

    Args:
      key: what a client must bring; None: nothing.
      log: what a line about each request is given to.

    Raises:
      InputError: a folder that is no model or adapter, or a setting out of range.
    """
    if request.place is not None and not request.guarded:
        raise InputError("--place goes with --guard")
    folder, adapters = _adapters(request)
    config = _speaking(folder)
    tokenizer = known_tokenizer(folder)
    decoding, decode = _decoder(tokenizer)
    ends = companions.all_ends(folder, stop_ids(tokenizer))
    experts = Experts(_shelf(request, adapters))
    engine = _engine(request, folder, config, experts.shelf, len(ends), decode)
    name = request.name or real_path(folder).name
    for expert, (adapter, source) in adapters.items():
        require_name(expert, name)
        experts.load(engine, expert, adapter, source)
    if request.warm_up:
        warm_up(engine)
    return Served(
        name=name,
        created=int(time.time()),
        tokenizer=tokenizer,
        decode=decode,
        bytes_of=token_bytes(decoding),
        ends=ends,
        vocabulary=config.vocab_size,
        slots=engine.slots,
        worker=Worker(engine, experts.prepared),
        experts=experts,
        admission=Admission(engine.slots.rows, request.settings.queue),
        meters=_meters(engine),
        texts=ThreadPoolExecutor(1),
        settings=request.settings,
        log=log,
        read_adapter=lambda path: Adapter(*peft.read_adapter(path, config, "float32")),
        route=_route(request, folder, tokenizer, config, engine),
        guard=open_guard(request.place) if request.guarded else None,
        key=key,
    )


def _speaking(folder: Path) -> DecoderConfig:
    config = hf.read_config(folder)
    if config.score_head:
        raise InputError(f"{folder} is a reward model, which says nothing; see `hen score`")
    return config


def _route(
    request: ServeRequest,
    folder: Path,
    tokenizer: ChatTokenizer,
    config: DecoderConfig,
    engine: Engine,
) -> RouteOf | None:
    """The router, which reads with the base that is served."""
    if request.router is None:
        return None
    router = read_router(request.router)
    require_base(router, request.router, folder)
    routed = router_on(router, tokenizer, config, split(engine.weights.model).base)
    return lambda messages: routed([messages], request.routing)[0].weights


def _decoder(tokenizer: ChatTokenizer) -> tuple[Tokenizer, Decode]:
    """A tokenizer to decode with, and ids -> text without control tokens.

    Encoding changes settings of its own tokenizer, which no other thread may use meanwhile.
    """
    backend = tokenizer.tokenizer.backend_tokenizer
    backend.no_truncation()  # a tokenizer.json may ask to cut or fill every text
    backend.no_padding()
    decoding = Tokenizer.from_str(backend.to_str())
    return decoding, lambda ids: decoding.decode(list(ids), skip_special_tokens=True)


def _engine(
    request: ServeRequest,
    folder: Path,
    config: DecoderConfig,
    shelf: Shelf | None,
    ends: int,
    decode: Decode,
) -> Engine:
    slots = _slots(request, config, shelf, ends)
    if shelf is None:
        weights = read_weights(folder, config, slots.places, dtype=request.dtype)
    else:
        weights = read_with_room(folder, config, slots.places, shelf.lora, request.dtype)
    return Engine(weights, slots, key="base", decode=decode)


def _meters(engine: Engine) -> Meters:
    return Meters(engine.slots.rows, lambda: len(engine.writing), lambda: len(engine.waiting))


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
        cache_dtype=request.cache_dtype,
        columns=0 if shelf is None else shelf.columns,
    )


def _shelf(request: ServeRequest, adapters: Mapping[str, tuple[Adapter, str]]) -> Shelf | None:
    places = len(adapters) if request.max_experts is None else request.max_experts
    if places < len(adapters):
        raise InputError(
            f"--max-experts is {places}, but {len(adapters)} experts are given; raise it"
        )
    largest = max((one.lora.rank for one, _ in adapters.values()), default=16)
    rank = largest if request.max_rank is None else request.max_rank
    return Shelf(places, rank) if places else None


def _adapters(request: ServeRequest) -> tuple[Path, dict[str, tuple[Adapter, str]]]:
    """The base's folder, and the adapters by name, each with where it comes from."""
    found: dict[str, tuple[Adapter, str]] = {}
    base = request.model
    if request.run is not None:
        saved = saved_experts(request.run)
        if base is not None and real_path(base) != real_path(saved.base):
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
    for filled in slots.reads[:-1]:  # beyond it a step is compiled to read more
        if filled + 3 < slots.places:
            engine.run([Request((0,) * filled, 2, sampling=greedy, tops=False)])
    for burst in _bursts(slots):
        engine.run([Request(prompt, 2, sampling=greedy, tops=False) for prompt in burst])


def _bursts(slots: Slots) -> Iterator[list[tuple[int, ...]]]:
    """Prompts that come together: of all sizes that are read several rows at a time, as they are
    and behind a beginning that the cache has, as a chat format's is."""
    begin = (9, *[2] * 24)
    for count in sorted({padded_count(n, slots.rows) for n in range(2, slots.rows + 1)}):
        for size in slots.prefill:
            if slots.prefill_tokens // size < 2 or len(begin) + size + 3 >= slots.places:
                continue
            # No prompt begins as another that was read before, but with `begin`.
            yield [(10 + row, *[size % 7 + 1] * size) for row in range(count)]
            yield [(*begin, 3)]
            yield [(*begin, 10 + row, *[size % 7 + 3] * size) for row in range(count)]

"""A router opened: from a conversation to the expert that answers it, or to nobody.

    route = open_router(Path("runs/router/router"))
    route([[Message("user", "My cat died.")]])[0].expert      # "distress", or None: the base

`weights` of a route are what `adapters.experts.expert_gate` takes: all on one expert, shared out by
probability, or none. A router reads the user's side alone, so the same conversation has the same
route whoever has answered it so far.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hen_jax.adapters.router import hard_choice, soft_weights, state_reader
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.folders import staged_folder
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.records import require_record, verified, write_record
from hen_jax.core.types import Tree
from hen_jax.evaluation.routing import Calibrated
from hen_jax.io import hf
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import WEIGHT_FILES, fingerprint, open_model
from hen_jax.runs.settings import settings
from hen_jax.text.chat import render_prompt
from hen_jax.text.conversation import Message
from hen_jax.text.tokenizer import ChatTokenizer

ROUTER_KIND = "router"
"""What the record of such a folder calls it."""

FOLDER, WEIGHTS = "router", "router.safetensors"
"""In the work directory of a run; and the head in it."""

RouteMode = Literal["top1", "soft"]


@dataclasses.dataclass(frozen=True)
class RouterReading:
    """What of a conversation a router reads."""

    turns: Count = 1  # messages of the user
    longest: Count = 256  # tokens; what comes later is not read
    layer: Natural = 0  # states after so many layers; 0: two thirds of them

    def __post_init__(self):
        check_ranges(self)


class Route(NamedTuple):
    """Who answers a conversation."""

    expert: str | None  # None: the base
    probability: float  # of the likeliest expert, calibrated
    probabilities: dict[str, float]
    weights: dict[str, float]  # of the experts that answer, by the mode; {}: the base


class Router(NamedTuple):
    """A head, what it reads, and what it was calibrated to."""

    names: tuple[str, ...]
    kernel: np.ndarray  # [D, E]
    bias: np.ndarray  # [E]
    calibrated: Calibrated
    reading: RouterReading
    base: dict[str, Any]  # folder, weights_sha256 and layer of the model that it reads with


RouteCall = Callable[..., list[Route]]
"""`route(conversations, mode="top1", sticky=True) -> [Route]`.

Sticky reads the first messages of the user, so that a conversation keeps its route; else the last
ones decide anew at each turn. "soft" shares the weight out by probability.
"""


def write_router(folder: Path, router: Router, report: dict[str, Any]) -> None:
    """Writes the folder, all or nothing; `report` goes into its record.

    Raises:
      InputError: something at `folder` that is no router of ours.
    """
    with staged_folder(folder, ROUTER_KIND) as new:
        # safetensors writes the raw memory of an array: a transpose would come back as another.
        leaves = {"kernel": router.kernel, "bias": router.bias}
        whole = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in leaves.items()}
        save_file(whole, new / WEIGHTS)
        fields = {
            "names": list(router.names),
            "reading": dataclasses.asdict(router.reading),
            "temperature": router.calibrated.temperature,
            "threshold": router.calibrated.threshold,
            "base": router.base,
            "report": report,
        }
        write_record(new, ROUTER_KIND, fields)


_SHAPE = {
    "names": [str],
    "temperature": float,
    "threshold": float,
    "reading": dict,
    "base": {"folder": str, "weights_sha256": str, "layer": int},
}


def read_router(folder: Path) -> Router:
    """The router in a folder, its files compared with their checksums.

    Raises:
      InputError: there is none, or it is damaged.
    """
    record, place = require_record(folder, ROUTER_KIND, _SHAPE), folder / RECORD
    reading = settings(RouterReading, record["reading"], f"{place}: reading")
    if record["temperature"] <= 0:
        raise InputError(f"{place}: temperature is {record['temperature']}; it must be positive")
    with verified(folder):
        try:
            leaves = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder / WEIGHTS}: {error}; train the router again") from None
    return Router(
        names=tuple(record["names"]),
        kernel=leaves["kernel"],
        bias=leaves["bias"],
        calibrated=Calibrated(record["temperature"], record["threshold"]),
        reading=reading,
        base=record["base"],
    )


def require_base(router: Router, folder: Path, model: Path) -> None:
    """Raises `InputError` unless the model has the weights that the router was trained with."""
    if fingerprint(model, WEIGHT_FILES) != router.base["weights_sha256"]:
        raise InputError(
            f"the router in {folder} was trained on other weights than those in {model}; give the "
            "model that it was trained with, or train it again"
        )


def open_router(folder: Path, model: Path | None = None) -> RouteCall:
    """A router that reads with a model folder of its own; None: the one that it was trained with.

    Raises:
      InputError: no router, no model there, or another model.
    """
    router = read_router(folder)
    model = Path(router.base["folder"]) if model is None else model
    config = hf.read_config(model)
    require_base(router, folder, model)
    execution = Execution(remat="none")
    opened = open_model(model, make_mesh(MeshConfig()), execution=execution, dtype="float32")
    return router_on(router, known_tokenizer(model), config, opened.base)


def router_on(
    router: Router,
    tokenizer: ChatTokenizer,
    config: DecoderConfig,
    base: Tree,
    execution: Execution = Execution(remat="none"),
) -> RouteCall:
    """A router on a base that is in memory already, such as the one that is served.

    Raises:
      InputError: the model has another width or too few layers.
    """
    layer = router.base["layer"]
    if (config.width, config.layers >= layer) != (len(router.kernel), True):
        raise InputError(
            f"the router reads states of width {len(router.kernel)} after layer {layer}; the model "
            f"has width {config.width} and {config.layers} layers"
        )
    read, skip = state_reader(config, base, layer, execution), common_prompt_start(tokenizer)

    def route(
        conversations: Sequence[Sequence[Message]], mode: RouteMode = "top1", *, sticky: bool = True
    ) -> list[Route]:
        if not conversations:
            return []
        documents = [
            read_tokens(users_of(one, router.reading, first=sticky), tokenizer, router.reading)
            for one in conversations
        ]
        logits = read(documents, skip) @ router.kernel + router.bias
        return routes(router, logits, mode)

    return route


def routes(router: Router, logits: np.ndarray, mode: RouteMode = "top1") -> list[Route]:
    """What the head's outputs `[N, E]` say of each conversation."""
    probabilities = router.calibrated.probabilities(logits)
    threshold, found = router.calibrated.threshold, []
    shares = soft_weights(probabilities, threshold)
    best = hard_choice(probabilities, threshold)
    for own, share, chosen in zip(probabilities, shares, best, strict=True):
        expert = router.names[chosen] if chosen >= 0 else None
        weights = {} if expert is None else {expert: 1.0}
        if mode == "soft" and expert is not None:
            weights = dict(zip(router.names, map(float, share), strict=True))
        named = dict(zip(router.names, map(float, own), strict=True))
        found.append(Route(expert, float(own.max()), named, weights))
    return found


def users_of(
    messages: Sequence[Message], reading: RouterReading, *, first: bool = True
) -> tuple[Message, ...]:
    """The user's first messages that a router reads, or the last ones.

    Raises:
      InputError: the user has said nothing.
    """
    said = [message for message in messages if message.role == "user"]
    if not said:
        raise InputError("a conversation without a message of the user has no route")
    return tuple(said[: reading.turns] if first else said[-reading.turns :])


def read_tokens(
    users: Sequence[Message], tokenizer: ChatTokenizer, reading: RouterReading
) -> np.ndarray:
    """`[n]` int32: these messages as one that the model is asked, cut at the greatest length.

    As one, since many chat formats have no place for two messages of the user in a row.
    """
    said = "\n\n".join(message.content for message in users)
    return render_prompt([Message("user", said)], tokenizer)[: reading.longest]


def common_prompt_start(tokenizer: ChatTokenizer) -> int:
    """How many tokens every prompt begins with, before the user's first word: they say nothing."""
    one, other = (render_prompt([Message("user", text)], tokenizer) for text in ("a", "0"))
    shorter = min(len(one), len(other))
    differs = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differs[0]) if len(differs) else shorter

"""The settings of a router, and what they must satisfy."""

import dataclasses

import jax
from jax.sharding import Mesh

from hen_jax.adapters.router import usual_layer
from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, NotNegative, UpToOne
from hen_jax.models.config import DecoderConfig
from hen_jax.runs.rated import Folds
from hen_jax.runs.routed import PartName, RoutedPart, RouteTo, routed_parts
from hen_jax.runs.routing import RouterReading
from hen_jax.runs.sources import Source
from hen_jax.runs.stage import RunSettings
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import LoopConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterSettings(RunSettings):
    """Everything that decides what a router becomes; each expert has conversations of its own."""

    routes: tuple[RouteTo, ...]  # the experts, two at least
    sources: tuple[Source, ...] = ()  # none here: each expert has its own
    unknown: tuple[Source, ...] = ()  # conversations of no expert, to measure by; none trains
    reading: RouterReading = RouterReading()
    folds: Folds = Folds(count=5)  # the held one tests, the next calibrates
    updates: Count = 300  # each of all conversations
    ridge: NotNegative = 1e-2  # times half the squared kernel, beside the mean cross-entropy
    keep: UpToOne = 0.95  # of the calibrating ones are routed
    loop: LoopConfig = LoopConfig(evaluators=("routing",), checkpoint_every=1000)

    def __post_init__(self):
        super().__post_init__()
        names = [route.name for route in self.routes]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InputError(f"config.routes are {names}; give two or more, each its own name")
        if self.sources or self.adapter is not None or self.start is not None:
            raise InputError(
                "a router leaves the model as it is: leave config.sources, config.adapter and "
                "config.start out, and give config.routes"
            )
        if self.folds.count < 3:
            raise InputError("config.folds.count: allowed: 3 or more; one tests, one calibrates")
        if self.microbatches != 1:
            raise InputError("config.microbatches: allowed: 1; all conversations are one batch")

    def layer(self, config: DecoderConfig) -> int:
        """The layer that is read."""
        return self.reading.layer or usual_layer(config)

    def parts(self, tokenizer: ChatTokenizer) -> dict[PartName, RoutedPart]:
        """Its conversations."""
        return routed_parts(self.routes, self.unknown, self.folds, self.reading, tokenizer)


def check(settings: RouterSettings, mesh: Mesh) -> None:
    """Raises `InputError` among several processes."""
    if jax.process_count() > 1:
        raise InputError("a router is trained by one process; start one")


def check_model(settings: RouterSettings, config: DecoderConfig) -> None:
    """Raises `InputError` for a layer that the model lacks."""
    if settings.reading.layer > config.layers:
        raise InputError(
            f"config.reading.layer is {settings.reading.layer}; the model has {config.layers}"
        )

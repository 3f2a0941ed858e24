"""What the experts of a run are, and what they must satisfy."""

import dataclasses
from typing import Any, Protocol

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Positive, check_ranges
from hen_jax.models.config import LoraConfig
from hen_jax.runs.packed import PackedSettings
from hen_jax.runs.sources import Source


@dataclasses.dataclass(frozen=True)
class Expert:
    """One adapter and what it learns from; what is left out is as in the config."""

    name: str
    sources: tuple[Source, ...] = ()  # none: it stays as config.start left it
    rank: Count | None = None
    alpha: float | None = None
    epochs: Positive | None = None

    def __post_init__(self):
        check_ranges(self)
        if not self.name.isidentifier():
            raise InputError(f"expert name {self.name!r}; give letters, digits and underscores")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsSettings(PackedSettings):
    """Everything that decides what experts become; `data.batch_size` rows of each a batch."""

    experts: tuple[Expert, ...]  # at least one, each with a name of its own
    sources: tuple[Source, ...] = ()  # none here: each expert has its own

    def __post_init__(self):
        super().__post_init__()
        check_experts(self)


class HasExperts(Protocol):
    """What the settings of any run of experts have."""

    @property
    def experts(self) -> tuple[Expert, ...]:
        """At least one."""
        ...

    @property
    def adapter(self) -> LoraConfig | None:
        """The shape of each, unless it says otherwise."""
        ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """None."""
        ...

    @property
    def data(self) -> Any:
        """Of which `batch_size` is of each expert."""
        ...

    @property
    def start(self) -> str | None:
        """The run that they go on from."""
        ...


def check_experts(settings: HasExperts) -> None:
    """Raises `InputError` for experts without names of their own, an adapter or anything to do."""
    names = [expert.name for expert in settings.experts]
    if settings.adapter is None or settings.sources:
        raise InputError("experts are adapters: give config.adapter, and each its own sources")
    if not names or len(set(names)) < len(names):
        raise InputError(f"config.experts are {names}; give one or more, each its own name")
    idle = [expert.name for expert in settings.experts if not expert.sources]
    if len(idle) == len(names) or (idle and settings.start is None):
        raise InputError(f"experts {idle} have no sources; only config.start can make them")


def adapters(settings: HasExperts) -> dict[str, LoraConfig]:
    """The shape of each expert's adapter."""
    usual = settings.adapter
    assert usual is not None
    return {
        expert.name: dataclasses.replace(
            usual,
            rank=usual.rank if expert.rank is None else expert.rank,
            alpha=usual.alpha if expert.alpha is None else expert.alpha,
        )
        for expert in settings.experts
    }


def learning(settings: HasExperts) -> dict[int, Expert]:
    """The experts that have something to learn from, by their numbers."""
    return {number: one for number, one in enumerate(settings.experts) if one.sources}


def rows(settings: HasExperts) -> int:
    """Rows of a batch: `data.batch_size` of each expert that learns."""
    return settings.data.batch_size * len(learning(settings))

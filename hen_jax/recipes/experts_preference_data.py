"""What experts trained on preferences are, and the batches that hold prompts of each."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.comparison_batches import trained_ids
from hen_jax.data.joined import JoinedBatches, Stream, join_all
from hen_jax.data.preference_batches import (
    PreferenceBounds,
    eval_preferences,
    preference_bounds,
    train_preferences,
)
from hen_jax.recipes.experts_settings import Expert, adapters, check_experts, learning
from hen_jax.runs.compared import describe_part
from hen_jax.runs.preferred import PreferenceSettings, Preferred, read_preferences
from hen_jax.runs.sources import Source
from hen_jax.runs.stage import Feed
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import LoopConfig
from hen_jax.training.processes import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsPreferenceSettings(PreferenceSettings):
    """Everything that decides what experts come to prefer; `data.batch_size` prompts of each."""

    experts: tuple[Expert, ...]  # at least one, each with a name of its own
    sources: tuple[Source, ...] = ()  # none here: each expert has its own
    loop: LoopConfig = LoopConfig()

    def __post_init__(self):
        super().__post_init__()
        check_experts(self)
        if self.preference.reference == "precomputed":
            raise InputError(
                "config.preference.reference is 'precomputed', which experts do not have: their "
                "references are adapters, and small; give 'start'"
            )


class ExpertPairBounds(NamedTuple):
    """What no row exceeds, and the updates of each expert."""

    rows: PreferenceBounds
    steps: tuple[int, ...]


def settings_alone(settings: ExpertsPreferenceSettings, expert: Expert) -> PreferenceSettings:
    """The settings of the run that would train this expert and no other."""
    named = {field.name: vars(settings)[field.name] for field in _OF_ONE}
    epochs = settings.epochs if expert.epochs is None else expert.epochs
    own = {"sources": expert.sources, "epochs": epochs, "adapter": adapters(settings)[expert.name]}
    return PreferenceSettings(**(named | own))


_OF_ONE = dataclasses.fields(PreferenceSettings)


def feed(settings: ExpertsPreferenceSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """The prompts of every expert side by side, each shuffled and repeated as if alone."""
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    found: dict[int, Preferred] = {}
    for number, expert in learning(settings).items():
        found[number] = read_preferences(settings_alone(settings, expert), tokenizer)
        for name, part in found[number].parts._asdict().items():
            print(f"expert {expert.name}, {describe_part(name, part, data)}")
    steps = tuple(
        _steps(settings_alone(settings, expert), found[number]) if number in found else 0
        for number, expert in enumerate(settings.experts)
    )
    bounds = preference_bounds(
        [row for one in found.values() for row in one.rows()],
        shared=data.shared_prompts,
        mismatches=settings.kto,
    )
    streams = [
        Stream(
            number,
            steps[number],
            train_preferences(one.parts.train.found, data, bounds, one.numbers, **shards),
        )
        for number, one in found.items()
    ]

    def held_out() -> Iterator[Any]:
        return join_all(
            {
                number: eval_preferences(
                    one.parts.valid.found.all(), data, bounds, one.numbers, **shards
                )
                for number, one in found.items()
            }
        )

    return Feed(
        steps=max(steps),
        bounds=ExpertPairBounds(bounds, steps),
        batches=JoinedBatches(streams),
        held_out=held_out,
        records=partial(_records, settings, found, steps),
    )


def _records(
    settings: ExpertsPreferenceSettings,
    found: Mapping[int, Preferred],
    steps: tuple[int, ...],
    number: int,
) -> list[str]:
    return [
        record
        for index, one in found.items()
        if number < steps[index]
        for record in trained_ids(one.parts.train.found, settings.data, number)
    ]


def _steps(settings: PreferenceSettings, found: Preferred) -> int:
    prompts = len(found.parts.train.found.all())
    return max(1, round(settings.epochs * prompts / settings.data.batch_size))

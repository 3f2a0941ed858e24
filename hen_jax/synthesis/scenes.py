"""Scenes: who writes, in which context, about what, for how many turns. All follows from a seed."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.patterns import Guides
from hen_jax.data.steered import FAULTS, Persona
from hen_jax.synthesis.materials import Materials


class WantedScenes(NamedTuple):
    """How many scenes, and of what."""

    contexts: tuple[str, ...]
    each: int  # scenes of a context
    turns: tuple[int, int]  # messages of the user at least and at most
    hard: float  # share of scenes that also get a hard pair
    seed: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """One conversation to be written."""

    id: str
    context: str
    task: str
    persona: Persona
    opening: str
    turns: int
    fault: str | None  # of its hard pair; None: it gets none


def scenes(wanted: WantedScenes, materials: Materials, guides: Guides) -> list[Scene]:
    """The scenes of each context: no opening comes again before all came, none twice to a persona.

    Raises:
      InputError: no such context, a task without an opening, or more scenes than there are pairs of
        a persona and an opening.
    """
    found = []
    for context in wanted.contexts:
        if context not in guides:
            raise InputError(f"context {context!r}; allowed: {', '.join(guides)}")
        openings = _openings(guides[context].context.tasks, materials)
        most = len(openings) * len(materials.personas)
        if wanted.each > most:
            raise InputError(
                f"{wanted.each} scenes of {context}, and its {len(openings)} openings and "
                f"{len(materials.personas)} personas make {most}; give fewer, or more materials"
            )
        found += _of_context(context, openings, wanted, materials)
    return found


def scene_row(scene: Scene) -> dict[str, Any]:
    """A scene as JSON."""
    return dataclasses.asdict(scene)


def _openings(tasks: Sequence[str], materials: Materials) -> list[tuple[str, str]]:
    for task in tasks:
        if task not in materials.openings:
            raise InputError(
                f"openings.{task}: missing; give what happens in a task in --materials"
            )
    return [(task, opening) for task in tasks for opening in materials.openings[task]]


def _of_context(
    context: str, openings: Sequence[tuple[str, str]], wanted: WantedScenes, materials: Materials
) -> list[Scene]:
    """Once through the shuffled openings, each with its first persona; then with its second ..."""
    draw = random.Random(f"{wanted.seed} {materials.language} {context}")
    order = draw.sample(range(len(openings)), len(openings))
    people = [draw.sample(materials.personas, len(materials.personas)) for _ in openings]
    faults = draw.sample(FAULTS, len(FAULTS))
    made = []
    for number in range(wanted.each):
        place = order[number % len(openings)]
        task, opening = openings[place]
        before, now = (int(wanted.hard * count) for count in (number, number + 1))
        made.append(
            Scene(
                id=f"{materials.language}-{context}-{number + 1:04d}",
                context=context,
                task=task,
                persona=people[place][number // len(openings)],
                opening=opening,
                turns=draw.randint(*wanted.turns),
                fault=faults[before % len(faults)] if now > before else None,
            )
        )
    return made

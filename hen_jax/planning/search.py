"""Trying changes until something fits, or until the best is known."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

_Settings = TypeVar("_Settings")
_Result = TypeVar("_Result")


class Change(NamedTuple, Generic[_Settings]):
    """A named edit of settings; None where it does not apply."""

    name: str
    edit: Callable[[_Settings], _Settings | None]


class FittingChange(NamedTuple, Generic[_Settings, _Result]):
    """Changes that were enough, the settings with them, and what came of it."""

    changes: tuple[str, ...]
    settings: _Settings
    result: _Result


def candidates(
    settings: _Settings, changes: Iterable[Change[_Settings]]
) -> Iterator[tuple[tuple[str, ...], _Settings]]:
    """Settings to try, smallest change first: each change alone, then ever more of them together.

    Changes a, b, c that all apply give a; b; c; a, b; a, b, c.
    """
    together: list[tuple[tuple[str, ...], _Settings]] = []
    for change in changes:
        alone = change.edit(settings)
        if alone is not None:
            yield (change.name,), alone
        names, before = together[-1] if together else ((), settings)
        after = change.edit(before)
        if after is not None:
            together.append(((*names, change.name), after))
    yield from together[1:]


def first_that_fits(
    settings: _Settings,
    changes: Iterable[Change[_Settings]],
    attempt: Callable[[_Settings], _Result | None],
) -> FittingChange[_Settings, _Result] | None:
    """The smallest change with which `attempt` gives a result; None if there is none."""
    for names, changed in candidates(settings, changes):
        result = attempt(changed)
        if result is not None:
            return FittingChange(names, changed, result)
    return None


def meshes(devices: int, most_tensor: int) -> Iterator[tuple[int, int, int]]:
    """Divisions of `devices` into data x fsdp x tensor in powers of two, smallest tensor first.

    `meshes(4, 2)` gives (1, 4, 1), (2, 2, 1), (4, 1, 1), (1, 2, 2), (2, 1, 2).
    """
    tensor = 1
    while tensor <= min(most_tensor, devices):
        fsdp = devices // tensor
        while fsdp >= 1 and devices % (fsdp * tensor) == 0:
            yield devices // (fsdp * tensor), fsdp, tensor
            if fsdp % 2:
                break
            fsdp //= 2
        tensor *= 2

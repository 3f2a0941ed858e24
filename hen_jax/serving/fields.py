"""Fields of a client's JSON, read by name; each refusal names the field and what is allowed."""

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from hen_jax.core.ranges import Range
from hen_jax.serving.refusals import RefusedError

Body = Mapping[str, Any]


def read_object(raw: bytes) -> dict[str, Any]:
    """The object that a body holds. Raises `RefusedError`."""
    try:
        found = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is not JSON ({str(error)[:120]})") from None
    if not isinstance(found, dict):
        raise RefusedError("the body is no JSON object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def refuse_others(body: Body, known: Collection[str], refused: Mapping[str, str]) -> None:
    """Refuses fields that nothing reads, and those of `refused`, which says why, unless empty."""
    for name, why in refused.items():
        if body.get(name):
            raise RefusedError(f"{name}: {why}", field=name, code="unsupported")
    if others := sorted(set(body) - set(known) - set(refused)):
        raise RefusedError(f"there is no field {others[0][:100]!r} here", field=others[0][:100])


def wrong(field: str, value: object, allowed: str) -> RefusedError:
    """A field whose value is none of what is allowed."""
    said = json.dumps(value)
    return RefusedError(
        f"{field} is {said if len(said) < 80 else said[:77] + '...'}; allowed: {allowed}",
        field=field,
    )


def integer_field(body: Body, name: str, default: int, low: int, high: int) -> int:
    """A whole number from `low` to `high`; null is as if it were not there."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(name, value, f"a whole number from {low} to {high}")
    return value


def number_field(body: Body, name: str, default: float, allowed: Range) -> float:
    """A number in a range."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or value not in allowed:
        raise wrong(name, value, str(allowed))
    return float(value)


def flag(body: Body, name: str, default: bool = False) -> bool:
    """True or false."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def text(body: Body, name: str, field: str | None = None) -> str:
    """A text that must be there."""
    value = body.get(name)
    if not isinstance(value, str):
        raise wrong(field or name, value, "a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise wrong(field or name, value, "a text of whole characters") from None
    return value


def texts(body: Body, name: str, most: int) -> tuple[str, ...]:
    """One text or a list of them, none of them empty."""
    value = body.get(name)
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    well = isinstance(found, list) and all(isinstance(one, str) and one for one in found)
    if not well or len(found) > most:
        raise wrong(name, value, f"a text or at most {most}, none empty")
    return tuple(text({name: one}, name) for one in found)

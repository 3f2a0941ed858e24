"""What can happen to a file: each damages it and says how, or gives None where it cannot."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], str | None]


def _flip(path: Path, draw: random.Random) -> str | None:
    content = bytearray(path.read_bytes())
    if not content:
        return None
    place = draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"a bit of byte {place} flipped"


def _cut(path: Path, draw: random.Random) -> str | None:
    size = path.stat().st_size
    if size == 0:
        return None
    os.truncate(path, length := draw.randrange(size))
    return f"cut to {length} bytes"


def _empty(path: Path, _: random.Random) -> str | None:
    if path.stat().st_size == 0:
        return None
    os.truncate(path, 0)
    return "emptied"


def _zeros(path: Path, draw: random.Random) -> str | None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content) + 1)
    end = min(len(content), start + 64)
    if not any(content[start:end]):
        return None
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return f"zeros at {start} to {end}"


def _longer(path: Path, draw: random.Random) -> str | None:
    with path.open("ab") as file:
        file.write(draw.randbytes(10))
    return "10 bytes longer"


def _delete(path: Path, _: random.Random) -> str | None:
    path.unlink()
    return "deleted"


def _swap(path: Path, draw: random.Random) -> str | None:
    others = [one for one in sorted(path.parent.iterdir()) if one.is_file() and one != path]
    others = [one for one in others if one.read_bytes() != path.read_bytes()]
    if not others:
        return None
    other = draw.choice(others)
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)
    return f"swapped with {other.name}"


def _field(path: Path, draw: random.Random) -> str | None:
    """A random place in a JSON file, or in one of its lines, holds something else."""
    lines = path.name.endswith(".jsonl")
    try:
        text = path.read_text(encoding="utf-8")
        value: Any = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
        holder, key = draw.choice(list(_places(value)))
    except (ValueError, IndexError):
        return None
    new = draw.choice([None, -1, 10**30, 0.5, "x", [], {}, True, "LEFT OUT", [[]]])
    if new == "LEFT OUT":
        del holder[key]
    elif holder[key] == new:
        return None
    else:
        holder[key] = new
    dumped = "".join(json.dumps(line) + "\n" for line in value) if lines else json.dumps(value)
    path.write_text(dumped, encoding="utf-8")
    return f"JSON {key!r} is {new!r}"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else ())
    )
    for key, item in items:
        yield value, key
        yield from _places(item)


DAMAGES: tuple[Damage, ...] = (_flip, _cut, _empty, _zeros, _longer, _delete, _swap, _field)

"""Rows and texts spoilt at random: whoever reads them takes them, or says in a line why not."""

import copy
import dataclasses
import json
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError, told
from hen_jax.data.rows import read_lines
from hen_jax.data.schema_pages import PAGES
from hen_jax.data.schemas import SCHEMAS, check_records
from hen_jax.data.votes import VoteReading, read_votes
from hen_jax.evaluation.verdicts import parse_order, parse_score, parse_winner
from hen_jax.text.conversation import Message, Reply
from hen_jax.text.replay import replay

LONGEST = 60
"""Seconds after which reading a small file counts as hanging."""

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 1e308, 10**30, "", " ", "x" * 5000, "\0", "\ud800", "\x1b[31m", "NaN",
    "[1, 2", '[{"role": "user"}]', "_x000D_", "\u202e", "\u2028", [], {}, [[]], [None], {"a": {}},
    {"": 1}, [{"role": "user", "content": "a"}] * 3,
)  # fmt: skip


HEADER = 4000
"""Bytes of a GGUF file in which it says what it holds."""


class Fault(NamedTuple):
    """What was read, and how it went wrong."""

    kind: str
    text: str
    what: str


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder in a JSON value, with the key or the index of each thing it holds."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def spoilt_value(value: Any, draw: random.Random) -> Any:
    """A copy in which one or two places hold, lack or are called something else."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2))):
        found = list(places(value))
        if not found:
            return value
        holder, key = draw.choice(found)
        how = draw.randrange(5)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[draw.choice(("", "id", " x", "\ud800", "k" * 400, "train", "tools"))] = (
                holder.pop(key)
            )
        elif how == 2:
            other, at = draw.choice(found)
            holder[key] = json.loads(json.dumps(other[at])) if at in _keys(other) else None
        else:
            holder[key] = copy.deepcopy(draw.choice(HOSTILE))  # it may be spoilt itself
    return value


def _keys(holder: Any) -> Iterable[Any]:
    return holder if isinstance(holder, dict) else range(len(holder))


def spoilt_text(text: str, draw: random.Random) -> str:
    """The text with some characters lost, added or changed."""
    at = draw.randrange(len(text) + 1)
    return draw.choice(
        (
            lambda: text[:at],
            lambda: text[:at] + draw.choice('{}[]",:\\\0\x1b\ud800é') + text[at:],
            lambda: text[:at] + text[at + 1 :],
            lambda: text.replace(":", ": NaN, " + '"id":', 1),
            lambda: text + text,
            lambda: "[" * 3000 + text,
            lambda: "\ufeff" + text,
            lambda: text.replace("1", "1" * 5000, 1),
        )
    )()


def spoilt_line(row: Any, draw: random.Random) -> str | bytes:
    """A row as a line of JSON: one in four sound, the others spoilt as a value or as a text."""
    kind = draw.random()
    if isinstance(row, bytes):
        return row if kind < 0.1 else spoilt_bytes(row, draw)
    if kind < 0.25:
        return json_lines(row)
    if kind < 0.8 and not isinstance(row, str):
        return json_lines(spoilt_value(row, draw), ensure_ascii=draw.random() < 0.5)
    return spoilt_text(json_lines(row), draw)


def spoilt_bytes(content: bytes, draw: random.Random) -> bytes:
    """The content cut short, or with some bytes of its header changed."""
    if draw.random() < 0.1:
        return content[: draw.randrange(len(content))]
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.randrange(min(len(found), HEADER))
        new = draw.choice((draw.randbytes(1), b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f"))
        found[at : at + len(new)] = new
    return bytes(found)


def json_lines(row: Any, *, ensure_ascii: bool = True) -> str:
    """A row as a line of JSON, or several as one each; a text as it is."""
    if isinstance(row, str):
        return row
    rows = row if isinstance(row, list) else [row]
    return "\n".join(json.dumps(one, ensure_ascii=ensure_ascii) for one in rows)


def written(path: Path, lines: Iterable[str | bytes]) -> Path:
    """A file of the lines, halves of characters among them; or of the bytes."""
    lines = list(lines)
    if isinstance(lines[0], bytes):
        path.write_bytes(lines[0])
        return path
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
    return path


def example_rows(schema: str, folder: Path) -> list[dict]:
    """The rows of a schema's example."""
    page = PAGES[schema]
    path = folder / f"example{page.suffix}"
    path.write_text(page.example, encoding="utf-8")
    return [line.row for line in read_lines(path) if line.row is not None]


def use_records(path: Path, schema: str) -> Counter[str]:
    """Reads the file and does with its records all that their schema can."""
    parsed, found = check_records(path, schema), SCHEMAS[schema]
    counts = Counter(refused=len(parsed.problems))
    for problem in parsed.problems:
        require_one_line(str(problem))
    for record in parsed.records:
        found.document(record), found.labels(record)
        for use in (found.pairs, found.rated):
            if use is not None:
                use(record)
        counts["read"] += 1
    return counts


def use_votes(path: Path, kind: Any) -> Counter[str]:
    """Reads a file of ratings or choices."""
    cast = read_votes([path], VoteReading(kind))
    for fault in cast.faults:
        require_one_line(fault.what)
    return Counter(read=len(cast.votes), refused=len(cast.faults))


def use_replay(path: Path, _: str) -> Counter[str]:
    """Opens recorded replies and asks for one."""
    (reply,) = replay(path)([[Message("user", "Hello.")]])
    assert isinstance(reply.text, str)
    assert reply.tokens is None or isinstance(reply.tokens, int)
    return Counter(read=1)


def use_verdict(path: Path, _: str) -> Counter[str]:
    """Reads each line as what a judge said."""
    counts = Counter()
    for line in path.read_text(encoding="utf-8", errors="surrogatepass").splitlines():
        reply = Reply(line)
        for parsed in (
            parse_score(reply, 1, 5, ("Interest",)),
            parse_winner(reply, "AB"),
            parse_order(reply, "ABC"),
        ):
            counts["refused" if parsed.failure else "read"] += 1
    return counts


def use_gguf(path: Path, _: str) -> Counter[str]:
    """Reads a model of llama.cpp's: config, tokenizer, and where the tensors are."""
    from hen_jax.io.gguf import open_gguf, read_gguf_tensors  # with jax
    from hen_jax.io.gguf_config import read_gguf_config
    from hen_jax.io.gguf_tokenizer import build_tokenizer

    reader = open_gguf(path)
    config = read_gguf_config(reader)
    build_tokenizer(reader).encode("It rains.")
    read_gguf_tensors(reader, config)
    return Counter(read=1)


def example_gguf(path: Path) -> bytes:
    """A tiny model as llama.cpp's converter writes it."""
    from tiny_gguf import CONFIG, write_gguf  # with jax

    write_gguf(path, config=dataclasses.replace(CONFIG, vocab_size=300))
    return path.read_bytes()


def require_one_line(text: str) -> None:
    """Nothing that a terminal would obey, and no page of it."""
    bad = [one for one in text if not one.isprintable()]
    assert not bad, f"a message holds {bad[0]!a}"
    assert len(text) < 2000, f"a message of {len(text)} characters: {text[:150]}"


class Kind(NamedTuple):
    """What is spoilt, and who reads it; `at_once` lines make a file."""

    rows: list[Any]
    use: Callable[[Path, str], Counter[str]]
    at_once: int = 40
    suffix: str = ".jsonl"


VOTES = {
    "ratings": [
        {"item": "i1", "annotator": "ann", "rating": 3},
        {"item": "i1", "annotator": "bob", "rating": "4"},
    ],
    "choices": [
        {"item": "i1", "annotator": "ann", "choice": "A"},
        {"item": "i1", "annotator": "bob", "choice": "both bad"},
    ],
}
SAID = {"messages": [{"role": "user", "content": "Hello."}], "reply": "Hi.", "tokens": 3}
VERDICTS = [{"score": 4, "dimensions": {"Interest": 2}}, {"winner": "B"}, {"order": list("BAC")}]


def kinds(folder: Path) -> Mapping[str, Kind]:
    """Everything there is to fuzz but GGUF files, by name: without jax."""
    schemas = {name: _of_schema(name, folder) for name in SCHEMAS}
    votes = {name: Kind(rows, use_votes) for name, rows in VOTES.items()}
    return schemas | votes | {
        "replay": Kind([SAID], use_replay, at_once=1),
        "verdict": Kind(VERDICTS, use_verdict),
    }  # fmt: skip


def gguf_kind(folder: Path) -> Kind:
    """Headers of GGUF files."""
    return Kind([example_gguf(folder / "m.gguf")], use_gguf, at_once=1, suffix=".gguf")


def _of_schema(name: str, folder: Path) -> Kind:
    """The rows one by one, as one where several make a record, or as the text that they must be."""
    if name == "empathetic_dialogues":
        return Kind([PAGES[name].example], use_records, at_once=1, suffix=PAGES[name].suffix)
    rows = example_rows(name, folder)
    alone = SCHEMAS[name].rows is not None
    return Kind(rows, use_records) if alone else Kind([rows], use_records, at_once=1)


def fuzz(name: str, kind: Kind, count: int, folder: Path, seed: int) -> tuple[Counter, list[Fault]]:
    """What became of `count` spoilt lines: how many were read or refused, and every fault."""
    draw, counts, faults = random.Random(f"{name} {seed}"), Counter(), []
    for start in range(0, count, kind.at_once):
        lines = [
            spoilt_line(draw.choice(kind.rows), draw)
            for _ in range(min(kind.at_once, count - start))
        ]
        found = _tried(name, kind, lines, folder)
        if isinstance(found, Fault) and len(lines) > 1:
            alone = [_tried(name, kind, [line], folder) for line in lines]
            faults += [one for one in alone if isinstance(one, Fault)] or [found]
        elif isinstance(found, Fault):
            faults.append(found)
        else:
            counts += found
    return counts, faults


def _tried(name: str, kind: Kind, lines: list[Any], folder: Path) -> Counter | Fault:
    path = written(folder / f"{name}{kind.suffix}", lines)
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(LONGEST)
    try:
        return kind.use(path, name)
    except InputError as error:
        return Counter(refused=len(lines)) + _told(error)
    except Exception:
        text = ascii("\n".join(map(str, lines)))[:300]
        return Fault(name, text, traceback.format_exc()[-700:])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _told(error: InputError) -> Counter[str]:
    """Nothing, where `hen` would tell it in one line."""
    found = told(error)
    assert found is not None
    require_one_line(found.line.replace("\n", " "))
    return Counter()


def _hangs(*_: object) -> None:
    raise TimeoutError(f"not done after {LONGEST} s")

"""Who answers, from one line: `model:FOLDER`, `endpoint:URL#MODEL` or `replay:FILE`.

The only place that turns such a line into a `Chat`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hen_jax.core.checksums import file_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.ranges import Count, NotNegative, Positive, check_ranges
from hen_jax.io import companions, hf
from hen_jax.io.endpoint import Endpoint, endpoint_chat
from hen_jax.runs.decoding import LONG, read_weights, require_room
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.speaker import continued
from hen_jax.sampling.weights import Weights
from hen_jax.text.chat import render_prompt, stop_ids
from hen_jax.text.conversation import Chat, Message, Reply
from hen_jax.text.detect import open_chat_tokenizer
from hen_jax.text.replay import replay
from hen_jax.text.tokenizer import ChatTokenizer

_KINDS = ("model:FOLDER", "endpoint:URL#MODEL", "replay:FILE")


@dataclasses.dataclass(frozen=True)
class Answering:
    """How replies are made; a replay heeds none of it.

    Raises:
      InputError: a number out of range, or an empty stop string.
    """

    max_new_tokens: Count = 512
    temperature: float = 0.0
    top_k: int = 0  # of a model of ours alone: endpoints have no such field
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()  # a reply ends before the first of these texts
    adapter: Path | None = None  # of a model of ours
    dtype: Literal["float32", "bfloat16"] = "float32"  # of a model of ours
    at_once: Count = 8  # this and what follows: of an endpoint (see `Endpoint`)
    per_minute: NotNegative = 0.0
    timeout: Positive = 120.0
    tries: Count = 5

    def __post_init__(self):
        check_ranges(self)
        Sampling(self.temperature, self.top_k, self.top_p)  # refuses what is out of range
        if not all(self.stop):
            raise InputError("a stop string is empty; leave it out, or give a text")


class BackEnd(NamedTuple):
    """A line that names one, taken apart."""

    kind: Literal["model", "endpoint", "replay"]
    where: str  # a folder, an address, a file
    model: str = ""  # of an endpoint


Speaker = Callable[[int], Chat]
"""`speaker(seed)`: the `Chat` whose draws depend on that seed; the weights are shared.

A model of ours goes on with a conversation that ends with the assistant's words; the reply is what
it adds. What an endpoint makes of one is its own affair."""


def open_chat(line: str, answering: Answering = Answering()) -> Chat:
    """The `Chat` that `line` names, which draws from `answering.seed`.

    Raises:
      InputError: no such back-end, or it cannot be opened. An endpoint is first spoken to when it
        is asked something.
    """
    return open_speaker(line, answering)(answering.seed)


def open_speaker(line: str, answering: Answering = Answering()) -> Speaker:
    """`open_chat` for callers that ask the same again and want other draws.

    Raises:
      InputError: as `open_chat`.
    """
    kind, where, _ = back_end(line)
    if kind == "model":
        return _model_speaker(Path(where), answering)
    if kind == "replay":
        if answering.adapter is not None:
            raise InputError(f"--adapter goes with model:FOLDER, not with {line}")
        chat = replay(Path(where))
        return lambda seed: chat
    given = endpoint_of(line, answering)
    return lambda seed: endpoint_chat(dataclasses.replace(given, seed=seed))


def endpoint_of(line: str, answering: Answering) -> Endpoint:
    """The endpoint that a line names, asked in that way.

    Raises:
      InputError: a setting that no endpoint has.
    """
    _, where, model = back_end(line)
    if answering.adapter is not None:
        raise InputError(f"--adapter goes with model:FOLDER, not with {line}")
    if answering.top_k:
        raise InputError(f"an endpoint has no top-k; leave it out with {line}")
    return Endpoint(
        where,
        model,
        seed=answering.seed,
        max_new_tokens=answering.max_new_tokens,
        temperature=answering.temperature,
        top_p=answering.top_p if answering.top_p < 1 else None,
        stop=answering.stop,
        at_once=answering.at_once,
        per_minute=answering.per_minute,
        timeout=answering.timeout,
        tries=answering.tries,
    )


def back_end(line: str) -> BackEnd:
    """A back-end's line, taken apart: `endpoint:http://localhost:8000/v1#mine`.

    Raises:
      InputError: no such back-end, or half of one.
    """
    kind, _, where = line.partition(":")
    where, _, model = where.partition("#") if kind == "endpoint" else (where, "", "")
    if kind in ("model", "replay") and where:
        return BackEnd(kind, where)
    if kind == "endpoint" and where and model:
        return BackEnd(kind, where.rstrip("/"), model)
    raise InputError(f"back-end {line!r}; give {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")


def revision(line: str, adapter: Path | None = None) -> str:
    """What tells one state of a back-end from another, as far as it can be known from here.

    Of a folder the checksum of its record or else of its weights' files, of a file its checksum. An
    endpoint says nothing that could be trusted: give a model behind it another name when it
    changes.

    Raises:
      InputError: no such back-end, folder or file.
    """
    kind, where, model = back_end(line)
    if kind == "endpoint":
        return model
    paths = [Path(where), *([] if adapter is None else [adapter])]
    return "+".join(_file_revision(path) for path in paths)


def _file_revision(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        return file_sha256(path)[:16]
    record = path / RECORD
    files = [record] if record.is_file() else sorted(path.glob("*.safetensors"))
    return "-".join(file_sha256(one)[:16] for one in files)


def _model_speaker(folder: Path, answering: Answering) -> Speaker:
    tokenizer, config = open_chat_tokenizer(folder), hf.read_config(folder)
    settings = generating(folder, tokenizer, answering)

    @functools.cache
    def weights(long: bool) -> Weights:
        """Read when first asked something: how attention is computed depends on the lengths."""
        longest = LONG + 1 if long else 1
        given = {"adapter": answering.adapter, "dtype": answering.dtype}
        return read_weights(folder, config, longest, **given)

    def speaker(seed: int) -> Chat:
        def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
            rows = [row_of(messages, tokenizer) for messages in asked]
            if not rows:
                return []
            longest = max(map(len, rows))
            require_room(longest, answering.max_new_tokens, config)
            held, decode = weights(longest > LONG), tokenizer.tokenizer.decode
            return continued(rows, held, decode, settings, seed % 2**32)

        return chat

    return speaker


def generating(folder: Path, tokenizer: ChatTokenizer, answering: Answering) -> Generating:
    """How a model folder generates, as asked: its own ends end a reply."""
    return Generating(
        answering.max_new_tokens,
        companions.all_ends(folder, stop_ids(tokenizer)),
        sampling=Sampling(answering.temperature, answering.top_k, answering.top_p),
        stop_strings=answering.stop,
    )


def row_of(messages: Sequence[Message], tokenizer: ChatTokenizer) -> list[int]:
    """The ids of a conversation; what an assistant's last message says is the reply's beginning."""
    *earlier, last = messages
    if last.role != "assistant":
        return render_prompt(messages, tokenizer).tolist()
    begun = tokenizer.tokenizer.backend_tokenizer.encode(last.content, add_special_tokens=False)
    return [*render_prompt(earlier, tokenizer).tolist(), *begun.ids]

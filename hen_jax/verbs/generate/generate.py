"""`hen generate`: replies to prompts or to one conversation, printed; of whoever is asked."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.conversations import messages_field
from hen_jax.io import companions, hf
from hen_jax.models.config import DecoderConfig
from hen_jax.runs.chats import Answering, Speaker, back_end, open_speaker, revision
from hen_jax.runs.decoding import read_weights, require_room
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.speaker import continued
from hen_jax.sampling.weights import Weights
from hen_jax.text.conversation import Conversation, Message, Reply, message_row
from hen_jax.text.tokenizer import load_tokenizer

DType = Literal["float32", "bfloat16"]

MOST_DRAWN = 10_000
"""To each prompt."""


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """One `hen generate`; fields carry the names of its flags."""

    model: Path | None = None
    prompts: tuple[str, ...] = ()
    adapter: Path | None = None
    system: str | None = None
    max_new_tokens: int = 128
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    dtype: DType = "float32"
    raw: bool = False  # continue the prompt as it stands, without the chat format
    merge: bool = True  # add the adapter into the weights first: one product per layer, not three
    backend: str | None = None  # who answers, where it is no model folder: `runs.chats`
    messages: Path | None = None  # a file with one conversation, instead of prompts
    n: int = 1  # replies to each
    stop: tuple[str, ...] = ()  # a reply ends before the first of these
    json: bool = False  # print each reply as a line of JSON
    at_once: int = 8  # this and what follows: of an endpoint (`io.endpoint`)
    per_minute: float = 0.0
    timeout: float = 120.0
    tries: int = 5

    @property
    def line(self) -> str:
        """Who answers. Raises `InputError` unless a model or a back-end is named, and not both."""
        if (self.model is None) == (self.backend is None):
            raise InputError("give --model FOLDER, or --backend to ask somebody else")
        return self.backend if self.backend is not None else f"model:{self.model}"


def generate_replies(request: GenerateRequest) -> list[Reply]:
    """Answers all prompts of the request together and prints the replies.

    Returns:
      `request.n` replies to each prompt, or to the one conversation, in their order.

    Raises:
      InputError: nothing to answer, a folder that is not a model or an adapter, a setting out of
        range, or whatever the back-end says.
    """
    require_settings(request)
    if bool(request.prompts) == (request.messages is not None):
        raise InputError("no prompt; give --prompt TEXT, once or more, or --messages FILE")
    if request.raw:
        return _continue_texts(request)
    asked = [one for one in conversations(request) for _ in range(request.n)]
    chat = open_speaker_of(request)(request.seed)
    began = time.perf_counter()
    replies = chat(asked)
    _show(request, asked, replies, time.perf_counter() - began)
    return replies


def require_settings(request: GenerateRequest) -> None:
    """Refuses settings out of range. Raises `InputError`."""
    if not 0 <= request.seed < 2**32:  # jax drops the bits above, without a word
        raise InputError(f"--seed is {request.seed}; give 0 to {2**32 - 1}")
    require_in("--n", request.n, Range(1, MOST_DRAWN))
    if not all(request.stop):
        raise InputError("--stop is empty: every reply would end before it begins; give a text")
    answering_of(request)  # refuses what is out of range


DELIVERY = ("at_once", "per_minute", "timeout", "tries")
"""Fields of a request that say how an endpoint is reached: no reply depends on them."""


def identity_of(request: GenerateRequest) -> str:
    """Names who answers, and how; not how an endpoint is reached."""
    told = {key: value for key, value in vars(request).items() if key not in DELIVERY}
    told["revision"] = revision(request.line, request.adapter)
    return text_sha256(json.dumps(told, sort_keys=True, default=str))


def open_speaker_of(request: GenerateRequest) -> Speaker:
    """Who answers the request, by seed. Raises `InputError` as `runs.chats.open_speaker`."""
    return open_speaker(request.line, answering_of(request))


def answering_of(request: GenerateRequest) -> Answering:
    """How replies to the request are made."""
    return Answering(
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
        adapter=request.adapter,
        dtype=request.dtype,
        at_once=request.at_once,
        per_minute=request.per_minute,
        timeout=request.timeout,
        tries=request.tries,
    )


def conversations(request: GenerateRequest) -> list[tuple[Message, ...]]:
    """What the request asks, its system message at the head of each.

    Raises:
      InputError: the file of messages holds no conversation, or nothing to answer.
    """
    if request.messages is None:
        said = [(Message("user", prompt),) for prompt in request.prompts]
    else:
        said = [read_messages(request.messages)]
    where = "--prompt" if request.messages is None else str(request.messages)
    return [to_answer(one, request.system, where) for one in said]


def to_answer(messages: Sequence[Message], system: str | None, where: str) -> tuple[Message, ...]:
    """A conversation that waits for a reply, with `system` at its head where that is not None.

    Raises:
      InputError: nothing to answer, or two system messages.
    """
    if system is not None and messages and messages[0].role == "system":
        raise InputError(f"{where}: it has a system message of its own; leave out --system")
    head = [] if system is None else [Message("system", system)]
    whole = Conversation((*head, *messages)).messages
    if whole[-1].role != "user":
        raise InputError(
            f"{where}: the last message is of the {whole[-1].role}, not of the user; there is "
            "nothing to answer"
        )
    return whole


def open_weights(request: GenerateRequest, config: DecoderConfig, longest: int) -> Weights:
    """`runs.decoding.read_weights` of the request, which names a folder."""
    return read_weights(
        _folder(request),
        config,
        longest,
        adapter=request.adapter,
        dtype=request.dtype,
        merge=request.merge,
    )


def reply_row(messages: Sequence[Message], reply: Reply) -> dict[str, object]:
    """A reply with what it answers, as a line of a replay (`text.replay`)."""
    said = {"text" if key == "text" else key: value for key, value in reply._asdict().items()}
    text = said.pop("text")
    return {"messages": list(map(message_row, messages)), "reply": text, **said}


def read_messages(path: Path) -> tuple[Message, ...]:
    """The conversation in a JSON file: `{"messages": [...]}`, or the list alone.

    Raises:
      InputError: it holds none.
    """
    found = read_json(path)
    row = found if isinstance(found, dict) else {"messages": found}
    try:
        return messages_field(row, "messages")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _continue_texts(request: GenerateRequest) -> list[Reply]:
    """Continues the prompts as they stand."""
    if not request.prompts or request.system is not None:
        raise InputError("--raw continues --prompt TEXT; it has no place for other messages")
    folder = _folder(request)
    tokenizer, config = load_tokenizer(folder), hf.read_config(folder)
    texts = [prompt for prompt in request.prompts for _ in range(request.n)]
    rows = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, rows))
    require_room(longest, request.max_new_tokens, config)
    settings = Generating(
        request.max_new_tokens,
        companions.all_ends(folder, ()),
        Sampling(request.temperature, request.top_k, request.top_p),
        request.stop,
    )
    weights = open_weights(request, config, longest)
    began = time.perf_counter()
    replies = continued(rows, weights, tokenizer.decode, settings, request.seed)
    asked = [(Message("user", text),) for text in texts]
    _show(request, asked, replies, time.perf_counter() - began)
    return replies


def _folder(request: GenerateRequest) -> Path:
    kind, where, _ = back_end(request.line)
    if kind != "model":
        raise InputError(f"--raw needs a model of ours, not {request.line}")
    return Path(where)


def _show(
    request: GenerateRequest,
    asked: Sequence[Sequence[Message]],
    replies: Sequence[Reply],
    seconds: float,
) -> None:
    for messages, reply in zip(asked, replies, strict=True):
        if request.json:
            print(json.dumps(reply_row(messages, reply), ensure_ascii=False))
            continue
        end = "" if reply.stopped else " [cut off at --max-new-tokens]"
        print(f"> {messages[-1].content}\n{reply.text}{end}\n")
    if not request.json:
        total = sum(reply.tokens or 0 for reply in replies)
        print(f"{total} tokens in {seconds:.1f} s, compilation included")

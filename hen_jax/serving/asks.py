"""What a client asks, read from the JSON of the OpenAI API and checked field by field."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Range
from hen_jax.sampling.logits import COLDEST, HOTTEST, Sampling
from hen_jax.serving import fields
from hen_jax.serving.fields import Body, wrong
from hen_jax.serving.refusals import RefusedError
from hen_jax.text.conversation import Conversation, Message, Role

MOST_REPLIES, MOST_TOP, MOST_STOPS, MOST_BIASES = 128, 20, 16, 300
"""Of one request: replies to a prompt, listed tokens at a place, stop strings, biased tokens."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty")
_OF_BOTH = (
    *("model", "n", "max_tokens", "stop", "seed", "stream", "stream_options", "logit_bias"),
    *("logprobs", "ignore_eos", *_SAMPLING),
)
_READ_CHAT = (*_OF_BOTH, "messages", "max_completion_tokens", "top_logprobs", "response_format")
_READ_COMPLETION = (*_OF_BOTH, "prompt", "echo", "best_of")
_IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("parallel_tool_calls", "prompt_cache_retention"),
)
"""Fields that change nothing about a reply."""

_NO_TOOLS = "tools are not called here"
_REFUSED = {"frequency_penalty": "there is none; presence_penalty and repetition_penalty are there"}
_REFUSED_CHAT = _REFUSED | {
    "tools": _NO_TOOLS,
    "functions": _NO_TOOLS,
    "function_call": _NO_TOOLS,
    "audio": "replies are texts",
    "prediction": "there is none",
    "reasoning_effort": "there is none",
    "web_search_options": "nothing is searched here",
    "verbosity": "there is none",
}
_REFUSED_COMPLETION = _REFUSED | {"suffix": "nothing is filled in before a suffix"}


@dataclasses.dataclass(frozen=True)
class ServedRequest:
    """One request."""

    model: str
    sampling: Sampling
    messages: tuple[Message, ...] = ()  # of a chat
    prompts: tuple[str | tuple[int, ...], ...] = ()  # of a completion: texts, or ids
    n: int = 1  # replies to each prompt
    max_new_tokens: int | None = None  # None: as many as fit
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False
    top: int | None = None  # probable tokens listed at each place; None: no log-probabilities
    echo: bool = False  # the reply begins with the prompt
    ignore_end: bool = False  # a reply ends by its length or a stop string alone


def read_chat(body: Body) -> ServedRequest:
    """A request for chat completions. Raises `RefusedError`, which names the field."""
    fields.refuse_others(body, (*_READ_CHAT, *_IGNORED, "tool_choice", "modalities"), _REFUSED_CHAT)
    _require_one_of(body, "tool_choice", ("none", "auto"))
    _require_one_of(body, "modalities", (["text"],))
    _require_one_of(body, "response_format", ({"type": "text"},))
    newer = body.get("max_completion_tokens") is not None
    most = "max_completion_tokens" if newer else "max_tokens"
    top = fields.integer_field(body, "top_logprobs", 0, 0, MOST_TOP)
    wanted = fields.flag(body, "logprobs")
    if top and not wanted:
        raise RefusedError("top_logprobs needs logprobs: true", field="top_logprobs")
    return dataclasses.replace(
        _common(body),
        messages=_messages(body.get("messages")),
        max_new_tokens=fields.integer_field(body, most, 0, 1, 1 << 31) or None,
        top=top if wanted else None,
    )


def read_completion(body: Body) -> ServedRequest:
    """A request for completions of plain texts or ids. Raises `RefusedError`."""
    fields.refuse_others(body, (*_READ_COMPLETION, *_IGNORED), _REFUSED_COMPLETION)
    echo = fields.flag(body, "echo")
    top = fields.integer_field(body, "logprobs", -1, 0, MOST_TOP)
    ask = _common(body)
    if fields.integer_field(body, "best_of", ask.n, 1, MOST_REPLIES) != ask.n:
        raise wrong("best_of", body["best_of"], f"n, which is {ask.n}")
    return dataclasses.replace(
        ask,
        prompts=_prompts(body.get("prompt")),
        max_new_tokens=fields.integer_field(body, "max_tokens", 16, 0 if echo else 1, 1 << 31),
        top=None if top < 0 else top,
        echo=echo,
    )


def _common(body: Body) -> ServedRequest:
    stream = fields.flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and not (isinstance(options, dict) and stream):
        raise wrong("stream_options", options, "an object, with stream: true")
    fields.refuse_others(options or {}, ("include_usage", "include_obfuscation"), {})
    return ServedRequest(
        model=fields.text(body, "model"),
        sampling=_sampling(body),
        n=fields.integer_field(body, "n", 1, 1, MOST_REPLIES),
        stop=fields.texts(body, "stop", MOST_STOPS),
        seed=_seed(body),
        stream=stream,
        include_usage=fields.flag(options or {}, "include_usage"),
        ignore_end=fields.flag(body, "ignore_eos"),
    )


def _seed(body: Body) -> int | None:
    if body.get("seed") is None:
        return None
    return fields.integer_field(body, "seed", 0, -(1 << 63), (1 << 63) - 1) % 2**32


def _sampling(body: Body) -> Sampling:
    given = {
        "temperature": fields.number_field(
            body, "temperature", 1.0, Range(COLDEST, HOTTEST, also=0)
        ),
        "top_p": fields.number_field(body, "top_p", 1.0, Range(0, 1, above=True)),
        "top_k": max(0, fields.integer_field(body, "top_k", 0, -1, 1 << 30)),  # -1: all, as in vLLM
        "min_p": fields.number_field(body, "min_p", 0.0, Range(0, 1)),
        "repetition_penalty": fields.number_field(
            body, "repetition_penalty", 1.0, Range(0.01, 100)
        ),
        "presence_penalty": fields.number_field(body, "presence_penalty", 0.0, Range(-2, 2)),
    }
    return Sampling(**given, logit_bias=_biases(body.get("logit_bias")))


def _biases(value: Any) -> tuple[tuple[int, float], ...]:
    allowed = f"an object of at most {MOST_BIASES} token ids, each with a number from -100 to 100"
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > MOST_BIASES:
        raise wrong("logit_bias", value, allowed)
    for token, bias in value.items():
        if not token.isascii() or not token.isdecimal() or len(token) > 9:
            raise wrong("logit_bias", {token: bias}, allowed)
        if isinstance(bias, bool) or bias not in Range(-100, 100):
            raise wrong("logit_bias", {token: bias}, allowed)
    return tuple((int(token), float(bias)) for token, bias in value.items())


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", value, "a list of one message or more")
    found = tuple(_message(one, f"messages[{place}]") for place, one in enumerate(value))
    try:
        return Conversation(found).messages
    except InputError as error:
        raise RefusedError(str(error), field="messages") from None


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise wrong(where, value, "an object with role and content")
    if value.get("tool_calls") or value.get("function_call"):
        raise RefusedError(f"{where}: {_NO_TOOLS}", field=f"{where}.tool_calls", code="unsupported")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{where}.role", role, ", ".join(_ROLES))
    return Message(_ROLES[role], _content(value.get("content"), f"{where}.content"))


def _content(value: Any, where: str) -> str:
    if not isinstance(value, list):
        return fields.text({where: value}, where)
    parts = []
    for place, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise wrong(f"{where}[{place}]", part, 'parts of type "text"')
        parts.append(fields.text(part, "text", f"{where}[{place}].text"))
    return "".join(parts)


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    allowed = "a text, a list of token ids, or a list of at most 256 such"
    if isinstance(value, str) or _are_ids(value):
        value = [value]
    if not isinstance(value, list) or not 0 < len(value) <= 256:
        raise wrong("prompt", value, allowed)
    if all(isinstance(one, str) for one in value):
        return tuple(fields.text({"prompt": one}, "prompt") for one in value)
    if all(map(_are_ids, value)):
        return tuple(map(tuple, value))
    raise wrong("prompt", value, allowed)


def _are_ids(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 1 << 31
            for one in value
        )
    )


def _require_one_of(body: Body, name: str, allowed: Sequence[Any]) -> None:
    value = body.get(name)
    if value is not None and value not in allowed:
        raise wrong(name, value, " or ".join(map(repr, allowed)))

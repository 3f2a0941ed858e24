"""llama.cpp itself, through its package xllamacpp: a GGUF file opened, asked, and closed."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import xllamacpp
from xllamacpp import ggml_type, llama_flash_attn_type


class Spoken(NamedTuple):
    """What llama.cpp wrote: ids, and the log-probability of each, in nats."""

    tokens: list[int]
    log_probs: list[float]


@contextmanager
def opened(path: Path, adapter: Path | None = None, context: int = 512) -> Iterator[Any]:
    """A server of a GGUF file, exact: its cache in float32, and no fused attention."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context
    params.n_parallel = 1
    params.warmup = params.fit_params = False
    params.verbosity = 0
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if adapter is not None:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = str(adapter), 1.0
        params.lora_adapters = [info]
    server = xllamacpp.Server(params)
    try:
        yield server
    finally:
        del server


def greedy(server: Any, prompt: Sequence[int] | str, count: int) -> Spoken:
    """The likeliest tokens after a prompt, to a stop token or `count`."""
    asked = {"prompt": prompt, "max_tokens": count, "temperature": 0.0, "logprobs": 1}
    return _spoken(server.handle_completions(asked | {"cache_prompt": False}))


def greedy_reply(server: Any, messages: Sequence[dict[str, str]], count: int) -> Spoken:
    """The reply to a conversation, which the file's chat template writes down."""
    asked = {"messages": list(messages), "max_tokens": count, "temperature": 0.0}
    return _spoken(server.handle_chat_completions(asked | {"logprobs": True, "top_logprobs": 1}))


def tokenized(server: Any, text: str, add_special: bool = False) -> list[int]:
    """The ids of a text, control tokens in it included."""
    asked = {"content": text, "add_special": add_special, "parse_special": True}
    request = urllib.request.Request(
        f"{server.listening_address}/tokenize",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["tokens"]


def _spoken(answer: dict[str, Any]) -> Spoken:
    assert "choices" in answer, answer
    said = answer["choices"][0]["logprobs"]["content"]
    return Spoken([one["id"] for one in said], [one["logprob"] for one in said])

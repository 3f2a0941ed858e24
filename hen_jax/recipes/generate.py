"""`hen generate`: continues prompts with a model folder and, if asked, an adapter folder."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from hen_jax.adapters.lora import merge_adapter
from hen_jax.core.errors import InputError
from hen_jax.io import companions, hf, peft
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.models.decoder import Decoder, abstract, merge, split
from hen_jax.sampling.generate import (
    Generating,
    Generation,
    Weights,
    generate,
    lay_out,
    pad_prompts,
)
from hen_jax.sampling.logits import Sampling
from hen_jax.text.chat import render_prompt, stop_ids
from hen_jax.text.conversation import Message
from hen_jax.text.detect import detect_format
from hen_jax.text.fast_tokenizer import without_transformers
from hen_jax.text.formats import ChatFormat
from hen_jax.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DType = Literal["float32", "bfloat16"]

LONG = 2048
"""Tokens of a prompt from which on attention is worked out in pieces."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One `hen generate`; fields carry the names of its flags."""

    model: Path
    prompts: tuple[str, ...]
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


class Reply(NamedTuple):
    """What one prompt became; log-probabilities are the model's own, in nats."""

    prompt: str
    text: str
    tokens: int  # its stop token included
    stopped: bool  # False: cut off at `max_new_tokens`
    mean_log_prob: float


def generate_replies(request: Request) -> list[Reply]:
    """Answers all prompts of the request in one batch and prints the replies.

    Raises:
      InputError: no prompt, a folder that is not a model or an adapter, a setting out of range.
    """
    if not request.prompts:
        raise InputError("no prompt; give --prompt TEXT, once or more")
    if not 0 <= request.seed < 2**32:  # jax drops the bits above, without a word
        raise InputError(f"--seed is {request.seed}; give 0 to {2**32 - 1}")
    sampling = Sampling(request.temperature, request.top_k, request.top_p)
    tokenizer = load_tokenizer(request.model)
    config = hf.read_config(request.model)
    chat_format = None if request.raw else detect_format(tokenizer)
    rows = [tokenised(prompt, request, tokenizer, chat_format) for prompt in request.prompts]
    _require_room(rows, request.max_new_tokens, config)
    stops = stops_of(request.model, tokenizer, chat_format)
    settings = Generating(request.max_new_tokens, stops, sampling=sampling)
    weights = open_weights(request, config, max(map(len, rows)))
    run = jax.jit(generate, static_argnames="settings")
    began = time.perf_counter()
    out = jax.device_get(run(weights, pad_prompts(rows), jax.random.key(request.seed), settings))
    replies = read_replies(request.prompts, out, stops, tokenizer)
    _show(replies, time.perf_counter() - began)
    return replies


def tokenised(
    prompt: str,
    request: Request,
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat | None,
) -> list[int]:
    """Ids of a user's turn, up to where the assistant speaks; of the bare text without a format."""
    if chat_format is None:
        return tokenizer.encode(prompt)
    system = [] if request.system is None else [Message("system", request.system)]
    asked = [*system, Message("user", prompt)]
    return render_prompt(asked, without_transformers(tokenizer), chat_format).tolist()


def stops_of(
    folder: Path, tokenizer: "PreTrainedTokenizerFast", chat_format: ChatFormat | None
) -> tuple[int, ...]:
    """Every id that ends a reply: the chat format's stop, and all that the model folder names."""
    own = stop_ids(without_transformers(tokenizer), chat_format) if chat_format else ()
    return companions.all_ends(folder, own)


def open_weights(request: Request, config: DecoderConfig, longest: int) -> Weights:
    """The model's weights, with the adapter merged in or beside them, laid out for decoding.

    `longest` is the number of tokens of the longest prompt: beyond `LONG` the scores of its
    attention are not formed all at once, so that memory is linear in it.
    """
    # A merged kernel is formed in float32 and rounded once, to the dtype asked for.
    merging = request.adapter is not None and request.merge
    base = hf.read_params(request.model, config, "float32" if merging else request.dtype)
    lora, adapter = None, {}
    if request.adapter is not None:
        lora, adapter = peft.read_adapter(request.adapter, config, "float32")
        if request.merge:
            base, lora, adapter = merge_adapter(base, adapter, lora.scale), None, {}
    attention = "chunked" if longest > LONG else "xla"
    execution = Execution(request.dtype, remat="none", attention=attention)
    structure = split(abstract(config, lora, execution)).graphdef
    dtype = jnp.dtype(request.dtype)
    placed = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (adapter, base))
    return jax.jit(partial(_laid_out, structure))(*placed)


def _laid_out(structure, *trees) -> Weights:
    model: Decoder = merge(structure, *trees)
    return lay_out(model)


def read_replies(
    prompts: Sequence[str],
    out: Generation,
    stops: tuple[int, ...],
    tokenizer: "PreTrainedTokenizerFast",
) -> list[Reply]:
    """The replies as text, without their stop tokens."""
    replies = []
    for prompt, tokens, log_probs, length in zip(
        prompts, out.tokens, out.log_probs, out.lengths, strict=True
    ):
        stopped = int(tokens[length - 1]) in stops
        text = str(tokenizer.decode(tokens[: length - stopped].tolist()))
        replies.append(Reply(prompt, text, int(length), stopped, float(log_probs[:length].mean())))
    return replies


def _require_room(rows: list[list[int]], max_new_tokens: int, config: DecoderConfig) -> None:
    longest = max(map(len, rows))
    if longest + max_new_tokens > config.max_length:
        raise InputError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's "
            f"{config.max_length} positions; shorten the prompt or lower --max-new-tokens"
        )


def _show(replies: list[Reply], seconds: float) -> None:
    for reply in replies:
        end = "" if reply.stopped else " [cut off at --max-new-tokens]"
        print(f"> {reply.prompt}\n{reply.text}{end}\n")
    total = sum(reply.tokens for reply in replies)
    print(f"{total} tokens in {seconds:.1f} s, compilation included")

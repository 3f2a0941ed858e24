"""`hen generate`: continues prompts with a model folder and, if asked, an adapter folder."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hen_jax.core.errors import InputError
from hen_jax.io import companions, hf
from hen_jax.models.config import DecoderConfig
from hen_jax.runs.decoding import read_weights, require_room
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.speaker import continued
from hen_jax.sampling.weights import Weights
from hen_jax.text.chat import render_prompt, stop_ids
from hen_jax.text.conversation import Message, Reply
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer, load_tokenizer

DType = Literal["float32", "bfloat16"]


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
    chat = None if request.raw else ChatTokenizer(tokenizer, detect_format(tokenizer))
    rows = [
        tokenizer.encode(prompt)
        if chat is None
        else render_prompt(_asked(prompt, request), chat).tolist()
        for prompt in request.prompts
    ]
    longest = max(map(len, rows))
    require_room(longest, request.max_new_tokens, config)
    stops = companions.all_ends(request.model, () if chat is None else stop_ids(chat))
    settings = Generating(request.max_new_tokens, stops, sampling=sampling)
    weights = open_weights(request, config, longest)
    began = time.perf_counter()
    replies = continued(rows, weights, tokenizer.decode, settings, request.seed)
    _show(request.prompts, replies, time.perf_counter() - began)
    return replies


def _asked(prompt: str, request: Request) -> list[Message]:
    system = [] if request.system is None else [Message("system", request.system)]
    return [*system, Message("user", prompt)]


def open_weights(request: Request, config: DecoderConfig, longest: int) -> Weights:
    """`runs.decoding.read_weights` of the request."""
    return read_weights(
        request.model,
        config,
        longest,
        adapter=request.adapter,
        dtype=request.dtype,
        merge=request.merge,
    )


def _show(prompts: Sequence[str], replies: Sequence[Reply], seconds: float) -> None:
    for prompt, reply in zip(prompts, replies, strict=True):
        end = "" if reply.stopped else " [cut off at --max-new-tokens]"
        print(f"> {prompt}\n{reply.text}{end}\n")
    total = sum(reply.tokens or 0 for reply in replies)
    print(f"{total} tokens in {seconds:.1f} s, compilation included")

"""The policy that trains, speaking: the engine with the parameters of the moment."""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from hen_jax.core.types import Tree
from hen_jax.io.endpoint import Endpoint
from hen_jax.io.token_endpoint import draw_tokens
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Slots
from hen_jax.sampling.weights import weights_from


class Spoken(NamedTuple):
    """One turn of the policy, its stop token included."""

    tokens: np.ndarray  # [n] int32
    log_probs: np.ndarray  # [n] float32, at the temperature it was drawn at
    stopped: bool  # ended by itself


Voice = Callable[[Sequence[np.ndarray], Sequence[int]], list[Spoken]]
"""`voice(prompts, seeds)`: a turn for each prompt, which depends on it and on its seed alone."""

Speak = Callable[[Tree, Tree], Voice]
"""`speak(params, base)`: the voice of those parameters."""


def own_speech(
    graphdef: nnx.GraphDef,
    slots: Slots,
    sampling: Sampling,
    stop: tuple[int, ...],
    max_new_tokens: int,
) -> Speak:
    """The model itself, of one engine: other parameters of the same shapes compile nothing anew.

    Adapter and base stay apart, in the dtypes that training computes with. Prompts that begin alike
    are read once. Several threads may speak; one at a time does.
    """
    weights, one_at_a_time = weights_from(graphdef), threading.Lock()
    engines: list[Engine] = []
    names = itertools.count()

    def speak(params: Tree, base: Tree) -> Voice:
        laid_out, name = weights(params, base), str(next(names))

        def voice(prompts: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Spoken]:
            asked = [
                Request(tuple(prompt.tolist()), max_new_tokens, stop, (), sampling, seed)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            with one_at_a_time:
                if not engines:
                    engines.append(Engine(laid_out, slots, name))
                engines[0].use(laid_out, name)
                return [_spoken(one) for one in engines[0].run(asked)]

        return voice

    return speak


def endpoint_speech(endpoint: Endpoint, stop: tuple[int, ...]) -> Speak:
    """A server that draws in the policy's place, whatever its weights are (`io.token_endpoint`).

    What it draws must be weighted by `min(old / sampler, cap)`: it is another policy.
    """

    def speak(params: Tree, base: Tree) -> Voice:
        def voice(prompts: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Spoken]:
            found = draw_tokens(endpoint, [one.tolist() for one in prompts], seeds, stop)
            return [
                Spoken(
                    np.asarray(one.tokens, np.int32),
                    np.asarray(one.log_probs, np.float32),
                    one.stopped,
                )
                for one in found
            ]

        return voice

    return speak


def _spoken(found: Any) -> Spoken:
    return Spoken(found.tokens, found.sampling_log_probs, found.finish == "stop")

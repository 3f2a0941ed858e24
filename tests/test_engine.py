"""The engine: replies are those of the training forward, whoever else is answered meanwhile."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import Decoder
from hen_jax.sampling import engine as e
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Slots
from hen_jax.sampling.weights import lay_out

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=97, width=32, head_dim=8, mlp_width=48, max_length=64
)
PROMPTS = ((5, 6, 7, 8, 9, 10, 11), (12,), (13, 14, 15))
GREEDY = Sampling(temperature=0.0)
SLOTS = Slots(rows=3, places=48, chunk=4, prefill=(4, 16), prefill_tokens=16, stops=2, biases=2)


@pytest.fixture(scope="module")
def model() -> Decoder:
    """Random weights, scaled up so that the next token is neither certain nor a coin toss."""
    model = Decoder(jax.random.key(0), CONFIG, LoraConfig(2, 4.0, ("q", "down")))
    model.embed.embedding[...] = model.embed.embedding[...] * 20
    b = model.blocks.attn.q.lora_b
    b[...] = jax.random.normal(jax.random.key(1), b.shape)  # an adapter that does something
    return model


@jax.jit
def training_logits(model: Decoder, tokens: jax.Array, segments: jax.Array) -> jax.Array:
    hidden = model.hidden(tokens, jnp.arange(tokens.shape[1])[None], segments)
    return model.logits(hidden)


def uncached(model: Decoder, tokens: list[int]) -> np.ndarray:
    """Logits `[T, V]` by the training forward pass of one row, padded at the right."""
    T = len(tokens)
    row = jnp.asarray([tokens + [0] * (48 - T)])
    return np.asarray(training_logits(model, row, (jnp.arange(48) < T).astype(int)[None]))[0, :T]


@pytest.mark.parametrize("unroll", [True, False])
def test_greedy_takes_the_argmax_of_the_training_forward(model: Decoder, unroll: bool):
    engine = e.Engine(lay_out(model, unroll), SLOTS)
    asked = [Request(prompt, 10, sampling=GREEDY) for prompt in (*PROMPTS, *PROMPTS[::-1])]
    for request, found in zip(asked, engine.run(asked), strict=True):
        whole = uncached(model, [*request.prompt, *found.tokens[:-1].tolist()])
        logits = whole[len(request.prompt) - 1 :]
        assert found.tokens.tolist() == logits.argmax(-1).tolist()
        own = np.asarray(jax.nn.log_softmax(logits))[np.arange(10), found.tokens]
        np.testing.assert_allclose(found.log_probs, own, atol=2e-5)
        assert (found.finish, found.prompt_tokens) == ("length", len(request.prompt))

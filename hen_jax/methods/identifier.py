"""Identifiers: small classifiers of a reply in its context, several heads on one trunk, in Flax.

Three uses: EPITOME's levels of emotional reaction, interpretation and exploration (the reward of
EmpRL, Ma et al., 2025), the emotion model of HEF, and facets of Muffin. After EmpRL's identifiers:
context and reply are encoded apart, the reply attends to the context with one head, a residual, the
mean over the reply's words, and for each head an MLP with tanh. Theirs encode by T5; the trunk here
is ours, words hashed into a small table and mixed with their neighbours, and trains in seconds.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int, PRNGKeyArray

from hen_jax.core.types import Tree
from hen_jax.evaluation.reply_rules import words_of

Heads = Mapping[str, tuple[str, ...]]
"""The labels of each head: `{"ER": ("none", "weak", "strong"), ...}`."""


@dataclasses.dataclass(frozen=True)
class IdentifierConfig:
    """Sizes; a word is one of `buckets` by its checksum, 0 pads."""

    buckets: int = 4096
    width: int = 48
    hidden: int = 32
    context: int = 96  # words of the context that are read, its last ones
    reply: int = 64  # words of the reply that are read, its first ones


class Pairs(NamedTuple):
    """Word numbers of contexts and replies; 0 where there is no word."""

    context: Int[np.ndarray, "B C"]
    reply: Int[np.ndarray, "B R"]


class Identifier(nnx.Module):
    """Logits of every head for pairs of context and reply."""

    def __init__(self, key: PRNGKeyArray, config: IdentifierConfig, heads: Heads):
        keys = iter(jax.random.split(key, 5 + 2 * len(heads)))
        D, F = config.width, config.hidden

        def matrix(*shape: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(next(keys), shape) * shape[0] ** -0.5)

        words = jax.random.normal(next(keys), (config.buckets, D)) * 0.1
        self.words = nnx.Param(words.at[0].set(0.0))
        self.mix = matrix(3 * D, D)
        self.query, self.key, self.value = matrix(D, D), matrix(D, D), matrix(D, D)
        self.inner = nnx.data({name: matrix(D, F) for name in heads})
        self.outer = nnx.data({name: matrix(F, len(labels)) for name, labels in heads.items()})

    def __call__(self, pairs: Pairs) -> dict[str, Float[jax.Array, "B O"]]:
        """Logits of pairs."""
        context, reply = (self.words[...][jnp.asarray(numbers)] for numbers in pairs)
        return self.logits(pairs, context, reply)

    def logits(
        self, pairs: Pairs, context: Float[jax.Array, "B C D"], reply: Float[jax.Array, "B R D"]
    ) -> dict[str, Float[jax.Array, "B O"]]:
        """Logits from the vectors of the words, for gradients by word."""
        there = [jnp.asarray(numbers) > 0 for numbers in pairs]
        c, r = (self._mixed(x, own) for x, own in zip((context, reply), there, strict=True))
        scores = jnp.einsum("brd,bcd->brc", r @ self.query[...], c @ self.key[...])
        scores = jnp.where(there[0][:, None], scores * c.shape[-1] ** -0.5, -1e9)
        seen = jax.nn.softmax(scores, axis=-1) @ (c @ self.value[...])
        seen = jnp.where(there[0].any(axis=1)[:, None, None], seen, 0.0)
        total = jnp.where(there[1][..., None], r + seen, 0.0).sum(axis=1)
        pooled = total / jnp.maximum(there[1].sum(axis=1, keepdims=True), 1)
        return {
            name: jnp.tanh(pooled @ self.inner[name][...]) @ self.outer[name][...]
            for name in self.inner
        }

    def _mixed(self, x: jax.Array, there: jax.Array) -> jax.Array:
        """Each word with the one before and the one after it, and the word itself."""
        x = jnp.where(there[..., None], x, 0.0)
        before = jnp.pad(x[:, :-1], [(0, 0), (1, 0), (0, 0)])
        after = jnp.pad(x[:, 1:], [(0, 0), (0, 1), (0, 0)])
        return x + jnp.tanh(jnp.concatenate([before, x, after], axis=-1) @ self.mix[...])


class Trained(NamedTuple):
    """An identifier: what it is and its leaves."""

    config: IdentifierConfig
    heads: Heads
    params: Tree


def encode_pairs(config: IdentifierConfig, texts: Sequence[tuple[str, str]]) -> Pairs:
    """Pairs of context and reply as word numbers."""
    context = np.zeros((len(texts), config.context), np.int32)
    reply = np.zeros((len(texts), config.reply), np.int32)
    for row, (before, said) in enumerate(texts):
        theirs = _numbers(words_of(before)[-config.context :], config.buckets)
        ours = _numbers(words_of(said)[: config.reply], config.buckets)
        context[row, : len(theirs)], reply[row, : len(ours)] = theirs, ours
    return Pairs(context, reply)


def initial(config: IdentifierConfig, heads: Heads, seed: int = 0) -> Trained:
    """An identifier that was not trained."""
    model = Identifier(jax.random.key(seed), config, heads)
    return Trained(config, dict(heads), nnx.to_pure_dict(nnx.split(model)[1]))


def graphdef_of(config: IdentifierConfig, heads: Heads) -> nnx.GraphDef:
    """The static structure of an identifier; no memory is taken."""
    return nnx.split(jax.eval_shape(lambda: Identifier(jax.random.key(0), config, heads)))[0]


def head_probabilities(
    found: Trained, texts: Sequence[tuple[str, str]], rows: int = 64
) -> dict[str, np.ndarray]:
    """`[texts, labels]` probabilities of every head, `rows` pairs at a time."""
    pairs, parts = encode_pairs(found.config, texts), []
    graphdef = graphdef_of(found.config, found.heads)
    for start in range(0, len(texts), rows):
        part = Pairs(*(numbers[start : start + rows] for numbers in pairs))
        short = rows - len(part.reply)
        padded = Pairs(*(np.pad(numbers, [(0, short), (0, 0)]) for numbers in part))
        logits = _logits(graphdef, found.params, padded)
        kept = {name: jax.nn.softmax(x)[: rows - short] for name, x in logits.items()}
        parts.append(jax.device_get(kept))
    return {name: np.concatenate([part[name] for part in parts]) for name in found.heads}


def predicted_labels(found: Trained, texts: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """The likeliest label of every head for each pair."""
    probs = head_probabilities(found, texts)
    best = {name: p.argmax(axis=1) for name, p in probs.items()}
    return [
        {name: found.heads[name][int(best[name][row])] for name in found.heads}
        for row in range(len(texts))
    ]


def word_weights(found: Trained, text: tuple[str, str], head: str) -> list[tuple[str, float]]:
    """How much each word of the reply speaks for the likeliest label of a head: gradient times
    vector, of the label's logit less the mean of the others; the weightiest first, none below 0."""
    graphdef, pairs = graphdef_of(found.config, found.heads), encode_pairs(found.config, [text])
    each = np.asarray(_leads(graphdef, head, found.params, pairs))
    total: dict[str, float] = {}
    for word, weight in zip(words_of(text[1])[: found.config.reply], each, strict=False):
        total[word] = total.get(word, 0.0) + float(weight)
    return sorted(((w, x) for w, x in total.items() if x > 0), key=lambda one: (-one[1], one[0]))


@partial(jax.jit, static_argnums=0)
def _logits(graphdef: nnx.GraphDef, params: Tree, pairs: Pairs) -> dict[str, jax.Array]:
    return nnx.merge(graphdef, params)(pairs)


@partial(jax.jit, static_argnums=(0, 1))
def _leads(graphdef: nnx.GraphDef, head: str, params: Tree, pairs: Pairs) -> Float[jax.Array, "R"]:
    """What each word of the one reply adds to the lead of a head's likeliest label."""
    model = nnx.merge(graphdef, params)
    context, reply = (model.words[...][jnp.asarray(numbers)] for numbers in pairs)

    def lead(reply: jax.Array) -> jax.Array:
        logits = model.logits(pairs, context, reply)[head][0]
        best = logits.argmax()
        return logits[best] - (logits.sum() - logits[best]) / max(1, len(logits) - 1)

    return (jax.grad(lead)(reply) * reply).sum(axis=-1)[0]


def _numbers(words: Sequence[str], buckets: int) -> list[int]:
    return [zlib.crc32(word.encode()) % (buckets - 1) + 1 for word in words]

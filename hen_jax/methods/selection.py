"""Synth-Empathy's selection: turns sampled, replies kept by quality, the set thinned for diversity.

After the published pipeline (Liang et al., 2024, arXiv 2407.21669). Its turn sampler always takes
the last round's reply, also behind a shorter history; here the reply is the one that follows what
is shown. Scores of quality come from a discriminator's own reply and an embedding, both exchanged
freely. Every step says how many it was given and how many it kept.
"""

import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.duplicates import duplicates, normal_form
from hen_jax.evaluation.reply_rules import words_of
from hen_jax.methods.k_centre import k_centre
from hen_jax.text.conversation import Conversation, Message

Embed = Callable[[Sequence[str]], np.ndarray]
"""`embed(texts)`: `[n, D]` float32, a row of length 1 for each text that says anything."""

THRESHOLD = 50.0
"""The least quality kept, a cosine times 100; 50 in the published code, 60 in its README."""


class Sample(NamedTuple):
    """A dialogue up to a reply, and the reply."""

    id: str
    shown: tuple[Message, ...]
    reply: str


class Kept(NamedTuple):
    """What a step left, by place, and its name for the report."""

    step: str
    places: tuple[int, ...]


def sample_turns(conversations: Sequence[tuple[str, Conversation]], seed: int = 0) -> list[Sample]:
    """One sample of each conversation: 1 to 3 rounds of history, what the user says then, and the
    reply to it.

    A round is what the user says and the reply to it. A conversation with fewer rounds shows those
    that it has; one without a reply gives none.
    What is drawn depends on the seed and the id alone, not on the order.
    """
    found = []
    for name, conversation in conversations:
        replies = [
            at
            for at, one in enumerate(conversation.messages)
            if one.role == "assistant" and at and conversation.messages[at - 1].role == "user"
        ]
        if not replies:
            continue
        random = np.random.default_rng((seed, zlib.crc32(name.encode())))
        at = replies[min(int(random.integers(1, 4)), len(replies) - 1)]
        shown, reply = conversation.messages[:at], conversation.messages[at]
        found.append(Sample(name, shown, reply.content))
    return found


def apart_from_seed(samples: Sequence[Sample], seed_texts: Sequence[str]) -> Kept:
    """Samples whose reply is neither in the seed set nor nearly that of an earlier sample."""
    known = {normal_form(text) for text in seed_texts}
    copies = {one.index for one in duplicates([one.reply for one in samples], 0.8)}
    places = [
        at
        for at, one in enumerate(samples)
        if at not in copies and normal_form(one.reply) not in known
    ]
    return Kept("apart from the seed set and from each other", tuple(places))


def quality(replies: np.ndarray, references: np.ndarray) -> np.ndarray:
    """`[n]`: 100 times the cosine of each reply's embedding and that of the discriminator's reply
    to the same dialogue; 0 where one of them says nothing."""
    lengths = np.linalg.norm(replies, axis=1) * np.linalg.norm(references, axis=1)
    return 100 * (replies * references).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)


def above(scores: np.ndarray, threshold: float = THRESHOLD) -> Kept:
    """Those of at least that quality."""
    return Kept(
        f"quality {threshold:g} or more", tuple(np.flatnonzero(scores >= threshold).tolist())
    )


def sweep_thresholds(
    scores: np.ndarray, thresholds: Sequence[float]
) -> list[tuple[float, int, float]]:
    """For each threshold, in order: how many are kept, and their mean quality (NaN of none)."""
    rows = []
    for threshold in sorted(thresholds):
        kept = scores[scores >= threshold]
        rows.append((threshold, len(kept), float(kept.mean()) if len(kept) else float("nan")))
    return rows


def diverse(embeddings: np.ndarray, share: float, seed: int = 0) -> Kept:
    """That share of the rows by k-centre, at least one; the first centre is drawn.

    Raises:
      InputError: a share outside of (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"a sampling share of {share:g}; give more than 0, and 1 at most")
    if not len(embeddings):
        return Kept("diverse", ())
    count = max(1, round(share * len(embeddings)))
    first = int(np.random.default_rng(seed).integers(len(embeddings)))
    found = k_centre(embeddings, count, first)
    return Kept(f"diverse, a share of {share:g}", tuple(sorted(set(found.tolist()))))


def hashed_embedding(width: int = 384) -> Embed:
    """Words and pairs of words with signs, hashed into `width` numbers and brought to length 1.

    A stand-in that needs no model. Texts without a common word are nearly at right angles.
    """

    def embed(texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), width), np.float32)
        for row, text in enumerate(texts):
            words = words_of(text)
            for word in (*words, *map(" ".join, itertools.pairwise(words))):
                code = zlib.crc32(word.encode())
                found[row, (code >> 1) % width] += 1 if code & 1 else -1
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(lengths > 0, lengths, 1.0)

    return embed

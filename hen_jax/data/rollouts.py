"""Sampled replies as rows to learn from: the prompt once, its group of replies behind it.

The prompt is computed once for all its replies, in the update as in the sampling. Numpy only: this
is the host's side of a rollout.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Batch, RowLimits
from hen_jax.data.examples import Shifted
from hen_jax.data.packing import lay_out_row, stack_rows

MULTIPLE = 32
"""Rows are as long as the longest prompt with its longest replies, rounded up to this."""


class Sampled(NamedTuple):
    """What followed a prompt: the policy's tokens, and between its turns those of others."""

    tokens: np.ndarray  # [n] int32
    drawn: np.ndarray  # [n] bool: the policy drew it, so it trains
    log_probs: np.ndarray  # [n] float32: of the sampler, at its temperature; 0 where not drawn
    truncated: bool = False  # cut off at the greatest length: nothing ended


class JudgedGroup(NamedTuple):
    """The replies to one prompt with what they earned, all arrays `[G]` but for `parts`."""

    prompt: np.ndarray  # [p] int32
    replies: tuple[Sampled, ...]  # G
    rewards: np.ndarray  # float32, the weighted sum
    parts: np.ndarray  # [G, C] float32: each reward before its weight; NaN where it gave none
    valid: np.ndarray  # bool: every reward gave a number


class Rollout(NamedTuple):
    """A batch of groups, one a row; reply `k` of a row is its segment `k + 1`."""

    batch: Batch  # [B, T]; `mask` is 1 where the target was drawn by the policy
    sampler: Array  # [B, T] float32, log-probabilities of the targets as they were drawn
    rewards: Array  # [B, G] float32
    parts: Array  # [B, G, C] float32; NaN where a reward gave none
    valid: Array  # [B, G] bool
    truncated: Array  # [B, G] bool
    repeated: Array  # [B, G] float32: share of 4-grams seen before in the reply


class RolloutBounds(NamedTuple):
    """What no row of a run exceeds: sizes that its programs are compiled for."""

    prompt: int  # tokens
    longest: int  # tokens after the prompt
    replies: int  # G
    row: int  # positions
    reach: RowLimits  # of the documents
    trained: int  # positions of a row that train at most


def bounds(prompt: int, longest: int, replies: int, shared: bool, valued: bool) -> RolloutBounds:
    """The bounds for prompts of at most `prompt` tokens and replies of at most `longest`.

    `valued` adds the position after a reply's last token, whose value a cut reply goes on with.
    Prompts of 300 and 8 replies of 512: 4,416 positions shared, 6,496 not.
    """
    common = prompt - 1 if shared and replies > 1 else 0
    own = prompt - 1 - common + longest + valued
    row = common + replies * own
    row = -(-row // MULTIPLE) * MULTIPLE
    reach = RowLimits(own, common, replies)
    return RolloutBounds(prompt, longest, replies, row, reach, replies * longest)


def rollout_batch(
    groups: Sequence[JudgedGroup | None], sizes: RolloutBounds, components: int, valued: bool
) -> Rollout:
    """One row per group, in order; None is a row of padding.

    Raises:
      InputError: a group with more or longer replies, or a longer prompt, than `sizes` allow.
    """
    rows = [_row(group, sizes, valued) for group in groups]
    return Rollout(
        stack_rows([batch for batch, _ in rows]),
        np.stack([sampler for _, sampler in rows]),
        *(np.stack(each) for each in zip(*(_told(g, sizes, components) for g in groups))),  # noqa: B905
    )


def _row(group: JudgedGroup | None, sizes: RolloutBounds, valued: bool) -> tuple[Batch, np.ndarray]:
    if group is None:
        return lay_out_row([], sizes.row), np.zeros(sizes.row, np.float32)
    _require_room(group, sizes)
    documents = [_document(group.prompt, one, valued) for one in group.replies]
    shared = len(group.prompt) - 1 if sizes.reach.prefix else 0
    row = lay_out_row([document for document, _ in documents], sizes.row, shared)
    sampler = np.zeros(sizes.row, np.float32)
    for segment, (_, log_probs) in enumerate(documents, start=1):
        own = row.segments == segment
        sampler[own] = log_probs[len(log_probs) - own.sum() :]
    return row, sampler


def _document(prompt: np.ndarray, reply: Sampled, valued: bool) -> tuple[Shifted, np.ndarray]:
    """Prompt and reply as inputs beside targets, and the sampler's log-probability of each target.

    The last token is an input only where its value is wanted; nothing is predicted there.
    """
    before = np.zeros(len(prompt), np.float32)
    tokens = np.concatenate([prompt, reply.tokens]).astype(np.int32)
    drawn = np.concatenate([before > 0, reply.drawn])
    log_probs = np.concatenate([before, reply.log_probs]).astype(np.float32)
    end = [0] if valued and len(reply.tokens) else []
    inputs = tokens if end else tokens[:-1]
    after = (np.concatenate([x[1:], np.asarray(end, x.dtype)]) for x in (tokens, drawn, log_probs))
    targets, mask, said = after
    return Shifted(inputs, targets, mask), said


def _require_room(group: JudgedGroup, sizes: RolloutBounds) -> None:
    longest = max((len(one.tokens) for one in group.replies), default=0)
    found = (len(group.prompt), longest, len(group.replies))
    for what, size, most in zip(("prompt", "reply", "group"), found, sizes[:3], strict=True):
        if size > most:
            raise InputError(f"a {what} of {size} where the run was laid out for {most} at most")


def _told(
    group: JudgedGroup | None, sizes: RolloutBounds, components: int
) -> tuple[np.ndarray, ...]:
    """Rewards, parts, validity, truncation and repetition of one row, filled up to G."""
    G = sizes.replies
    rewards, valid, cut = np.zeros(G, np.float32), np.zeros(G, bool), np.zeros(G, bool)
    parts, repeated = np.full((G, components), np.nan, np.float32), np.zeros(G, np.float32)
    if group is not None:
        n = len(group.replies)
        spoke = np.asarray([one.drawn.any() for one in group.replies])
        valid[:n] = group.valid & spoke
        rewards[:n] = np.where(valid[:n], group.rewards, 0.0)
        parts[:n] = group.parts
        cut[:n] = [one.truncated for one in group.replies]
        repeated[:n] = [repeated_share(one.tokens[one.drawn]) for one in group.replies]
    return rewards, parts, valid, cut, repeated


def repeated_share(items: Sequence[object] | np.ndarray, n: int = 4) -> float:
    """The share of `n`-grams that occurred before in the same sequence, in [0, 1).

    `repeated_share("abab", 2)` is 1 / 3: of ab, ba, ab the last was there. 0 for short ones.
    """
    grams = [tuple(items[at : at + n]) for at in range(len(items) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0

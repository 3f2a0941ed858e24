"""The log-probabilities of replies, under a model of ours or one behind an endpoint.

Ours reads each prompt once for all its replies. Rows of like length are computed together, and what
a program is compiled for is rounded up, so that a few programs serve texts of all lengths.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh, replicated, rows_over
from hen_jax.core.types import RowLimits, Tree
from hen_jax.data.comparisons import Compared
from hen_jax.data.continuations import continuations
from hen_jax.data.preference_batches import (
    PreferenceBounds,
    Weighed,
    WeighedBounds,
    preference_batch,
    preference_bounds,
)
from hen_jax.data.preferences import Labelled
from hen_jax.evaluation.suite import LogProbs, Turns
from hen_jax.io import hf
from hen_jax.io.endpoint import Endpoint
from hen_jax.io.token_endpoint import endpoint_log_probs
from hen_jax.models.config import Execution
from hen_jax.runs.adapted import Adapted, open_adapted
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import language_model
from hen_jax.steps.reply_scores import ReplyScoring, reply_lengths, reply_sums, whole
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.placement import to_devices

_Asked = tuple[Turns, tuple[str, ...]]
"""A prompt, and the replies whose log-probabilities are wanted."""

Likelihood = Callable[[Sequence[_Asked]], list[LogProbs]]

_TOKENS = 4096
"""Positions of a batch on each device, or those of one row."""


def open_likelihood(
    folder: Path, adapter: Path | None = None, dtype: Literal["float32", "bfloat16"] = "float32"
) -> Likelihood:
    """What `LogProbs` a model gives; the same prompt with other replies may be asked again.

    A reply's tokens are those of its text and of the end of turn behind it.

    Raises:
      InputError: no language model or no adapter for it; when asked, a prompt with its replies
        that exceeds the model's positions.
    """
    config = language_model(hf.read_config(folder))
    run = Execution(compute_dtype=dtype, remat="none")
    held = open_adapted(folder, adapter, config, make_mesh(MeshConfig()), run)
    tokenizer = known_tokenizer(folder)
    programs: dict[WeighedBounds, Any] = {}

    def likelihood(asked: Sequence[_Asked]) -> list[LogProbs]:
        replies: dict[Turns, dict[str, int]] = {}
        for prompt, texts in asked:
            places = replies.setdefault(prompt, {})
            for text in texts:
                places.setdefault(text, len(places))
        records = [
            Labelled(f"{at}", f"{at}", _said(prompt, text), True)
            for at, (prompt, texts) in enumerate(replies.items())
            for text in texts
        ]
        taken = continuations(records, tokenizer, row_length=2**31)
        _require_fit(taken.compared, config.max_length)
        found = dict(zip(replies, _scored(held, programs, taken.compared), strict=True))
        return [
            _of(found[prompt], [replies[prompt][text] for text in texts]) for prompt, texts in asked
        ]

    return likelihood


def endpoint_likelihood(endpoint: Endpoint, tokenizer_of: Path) -> Likelihood:
    """The same of a model behind a completions endpoint that echoes log-probabilities.

    Args:
      tokenizer_of: a folder with the model's own tokenizer and chat format: texts go as token ids.
    """
    tokenizer = known_tokenizer(tokenizer_of)

    def likelihood(asked: Sequence[_Asked]) -> list[LogProbs]:
        records = [
            Labelled(f"{at}/{k}", f"{at}", _said(prompt, text), True)
            for at, (prompt, texts) in enumerate(asked)
            for k, text in enumerate(texts)
        ]
        rows = [one for record in records for one in _alone(record, tokenizer)]
        texts = [np.append(row.documents[0], row.targets[0][-1]).tolist() for row in rows]
        scored = zip(rows, endpoint_log_probs(endpoint, texts), strict=True)
        pairs = iter(
            [(float(row.weights[0] @ found), row.weights[0].sum()) for row, found in scored]
        )
        return [
            LogProbs(*np.asarray([next(pairs) for _ in texts]).reshape(-1, 2).T)
            for _, texts in asked
        ]

    return likelihood


def _alone(record: Labelled, tokenizer: ChatTokenizer) -> list[Compared]:
    return continuations([record], tokenizer, row_length=2**31, shared=False).compared


def _said(prompt: Turns, text: str) -> Conversation:
    return Conversation((*prompt, Message("assistant", text)))


def _of(found: LogProbs, places: list[int]) -> LogProbs:
    return LogProbs(found.sums[places], found.tokens[places])


def _require_fit(rows: Sequence[Compared], positions: int) -> None:
    for row in rows:
        if (longest := max(map(len, row.documents))) > positions:
            raise InputError(
                f"a prompt with its reply has {longest} tokens, more than the model's {positions} "
                "positions; leave it out"
            )


def _scored(
    held: Adapted, programs: dict[WeighedBounds, Any], rows: Sequence[Compared]
) -> list[LogProbs]:
    """The sums of each row, in order. `programs` are those compiled so far; new ones are added."""
    found: list[LogProbs] = [LogProbs(np.zeros(0), np.zeros(0))] * len(rows)
    put, over = to_devices(held.mesh), rows_over(held.mesh)
    for places in _batches(rows, over):
        own = [rows[place] for place in places]
        bounds = _rounded_bounds(preference_bounds(own, shared=True, mismatches=False).rows)
        if bounds not in programs:
            programs[bounds] = _compiled(held, bounds)
        size = min(_size(bounds.row, over), over * _power(-(-len(own) // over)))
        padded: list[Compared | None] = [*own, *[None] * (size - len(own))]
        numbers = {row: at for at, row in enumerate(own)}
        batch = preference_batch(padded, None, PreferenceBounds(bounds), numbers)
        sums, lengths = programs[bounds](held.params, held.frozen, put(batch.rows))
        for place, s, n in zip(places, np.asarray(sums), np.asarray(lengths), strict=False):
            count = len(rows[place].documents)
            found[place] = LogProbs(s[:count], n[:count])
    return found


def _batches(rows: Sequence[Compared], over: int) -> Iterator[list[int]]:
    """Places of rows that are computed together: as many replies each, of like length."""
    order = sorted(range(len(rows)), key=lambda at: (len(rows[at].documents), -rows[at].length))
    for _, same in itertools.groupby(order, key=lambda at: len(rows[at].documents)):
        left = list(same)  # the longest first
        while left:
            size = _size(_up(rows[left[0]].length), over)
            yield left[:size]
            left = left[size:]


def _size(length: int, over: int) -> int:
    """Rows of a batch."""
    return max(1, _TOKENS // length) * over


def _rounded_bounds(bounds: WeighedBounds) -> WeighedBounds:
    """Bounds that many batches have in common; none is less than it was."""
    row, reach = _up(bounds.row), bounds.reach
    if reach is not None:
        document, prefix = (min(row, _power(one)) for one in (reach.document, reach.prefix))
        reach = RowLimits(document, prefix, reach.documents)
    return WeighedBounds(row, bounds.replies, min(row, _power(bounds.trained)), reach)


def _up(length: int) -> int:
    """The least multiple that holds so many positions: of 32 up to 256, of 64 up to 512, ..."""
    step = max(32, _power(length) // 8)
    return -(-length // step) * step


def _power(number: int) -> int:
    """The least power of two that is no smaller; 0 of 0."""
    return 1 << (number - 1).bit_length() if number else 0


def _compiled(held: Adapted, bounds: WeighedBounds) -> Any:
    scoring = ReplyScoring(held.opened.graphdef)

    def sums(params: Tree, frozen: Tree, rows: Weighed) -> tuple[Any, Any]:
        found = reply_sums(scoring, bounds, rows, params, frozen)
        return whole(found), reply_lengths(rows, bounds.replies)

    return jax.jit(sums, out_shardings=replicated(held.mesh))

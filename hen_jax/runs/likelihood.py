"""The log-probabilities of replies, under a model of ours or one behind an endpoint.

Ours reads each prompt once for all its replies. Rows of like length are computed together, so that
a few programs serve texts of all lengths.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh, replicated, rows_over
from hen_jax.core.types import Tree
from hen_jax.data.comparisons import Compared
from hen_jax.data.continuations import continuations
from hen_jax.data.preference_batches import (
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

BUCKETS = (128, 256, 512, 1024)
"""Row lengths that share a program; a longer row is of the last bucket's program, as long as it
takes."""


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
        found = dict(zip(replies, _scored(held, taken.compared), strict=True))
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


def _scored(held: Adapted, rows: Sequence[Compared]) -> list[LogProbs]:
    """The sums of each row, in order; buckets of like length and number of replies by turns."""
    found: list[LogProbs] = [LogProbs(np.zeros(0), np.zeros(0))] * len(rows)
    buckets: dict[tuple[int, int], list[int]] = {}
    for place, row in enumerate(rows):
        size = next((one for one in BUCKETS if row.length <= one), BUCKETS[-1] + 1)
        buckets.setdefault((size, len(row.documents)), []).append(place)
    for places in buckets.values():
        own = [rows[place] for place in places]
        for place, sums in zip(places, _bucket(held, own), strict=True):
            found[place] = sums
    return found


def _bucket(held: Adapted, rows: Sequence[Compared]) -> list[LogProbs]:
    bounds = preference_bounds(rows, shared=True, mismatches=False)
    run, put = _compiled(held, bounds.rows), to_devices(held.mesh)
    size = max(1, _TOKENS // bounds.rows.row) * rows_over(held.mesh)
    numbers = {row: at for at, row in enumerate(rows)}
    found = []
    for start in range(0, len(rows), size):
        part: list[Compared | None] = [*rows[start : start + size]]
        padded = part + [None] * (size - len(part))
        batch = preference_batch(padded, None, bounds, numbers)
        sums, lengths = run(held.params, held.frozen, put(batch.rows))
        pairs = zip(np.asarray(sums), np.asarray(lengths), part, strict=False)
        found += [LogProbs(s[: len(row.documents)], n[: len(row.documents)])
                  for s, n, row in pairs if row is not None]  # fmt: skip
    return found


def _compiled(held: Adapted, bounds: WeighedBounds) -> Any:
    scoring = ReplyScoring(held.opened.graphdef)

    def sums(params: Tree, frozen: Tree, rows: Weighed) -> tuple[Any, Any]:
        found = reply_sums(scoring, bounds, rows, params, frozen)
        return whole(found), reply_lengths(rows, bounds.replies)

    return jax.jit(sums, out_shardings=replicated(held.mesh))

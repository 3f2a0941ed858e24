"""What a preference run says of held-out pairs, and the reference's stored log-probabilities."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from hen_jax.core.mesh import replicated
from hen_jax.core.types import Array, Tree
from hen_jax.data.preference_batches import PreferenceBatch
from hen_jax.recipes.reward_report import reward_reporting
from hen_jax.runs.preferred import Preferred, all_batches, read_preferences, require_pairs
from hen_jax.runs.reference import score_all, stored_table
from hen_jax.runs.stage import Job, rows_to_devices
from hen_jax.steps.preference import implicit_rewards
from hen_jax.steps.preference_plan import PreferencePlan
from hen_jax.steps.reply_scores import reply_lengths, reply_sums
from hen_jax.steps.state import State
from hen_jax.training.loop import Evaluator, Prepare
from hen_jax.training.placement import to_devices
from hen_jax.training.processes import row_share

_REPORT = "preferences.json"
"""In the work directory of a run."""


def preference_report(job: Job) -> Evaluator:
    """Accuracy of the implicit reward by kind of held-out pair, beside its controls.

    The last report is `preferences.json`, drawn in `preferences.png`; see `reward_report`. The
    reference's log-probabilities are computed once.

    Raises:
      InputError: there is no held-out pair.
    """
    config, put = job.settings.preference, to_devices(job.mesh)
    found, sums = read_preferences(job.settings, job.tokenizer), _sums(job)
    require_pairs(found)
    held = [batch._replace(mismatched=None) for batch in job.feed.held_out()]
    kept: list[Any] = [None] * len(held)
    if config.objective.start is not None:
        known = score_all(job, sums, held) if config.keeps_reference else _table(job, found)
        first = 0 if config.keeps_reference else len(found.parts.train.found.all())
        kept = _in_batches(known[first:], len(held), job.settings.data.batch_size)
    replies = job.feed.bounds.rows.replies

    def score(params: Tree, frozen: Tree, batch: PreferenceBatch, reference: Array) -> Array:
        lengths = reply_lengths(batch.rows, replies)
        return implicit_rewards(sums(params, frozen, batch), reference, lengths, config)

    scored = jax.jit(score, out_shardings=replicated(job.mesh))

    def scores(state: State) -> np.ndarray:
        rows = [
            scored(state.params, job.frozen, put(batch), reference)
            for batch, reference in zip(held, kept, strict=True)
        ]
        return np.concatenate([np.asarray(row) for row in rows])

    return reward_reporting(job, found.parts, scores, _REPORT)


def stored_references(job: Job) -> Prepare:
    """Rows to devices, with the reference's log-probabilities where they are stored."""
    put, chosen = rows_to_devices(job), job.settings.preference
    if chosen.objective.start is None or chosen.keeps_reference:
        return put
    table = _table(job, read_preferences(job.settings, job.tokenizer))

    def prepare(state: State, frozen: Tree, batch: PreferenceBatch) -> PreferenceBatch:
        known = np.where(batch.number[:, None, None] >= 0, table[batch.number], 0.0)
        return put(state, frozen, batch._replace(reference=known.astype(np.float32)))

    return prepare


def _sums(job: Job) -> Callable[[Tree, Tree, PreferenceBatch], Array]:
    settings, bounds = job.settings, job.feed.bounds
    scoring = PreferencePlan(
        job.model.graphdef, bounds, settings.preference, settings.logit_chunk
    ).scoring

    def sums(params: Tree, frozen: Tree, batch: PreferenceBatch) -> Array:
        return reply_sums(scoring, bounds.rows, batch.rows, params, frozen)

    return sums


def _table(job: Job, found: Preferred) -> np.ndarray:
    batches = partial(all_batches, job.settings, found, row_share(job.mesh))
    return stored_table(job, _sums(job), found.rows(), lambda: list(batches()))


def _in_batches(known: np.ndarray, count: int, size: int) -> list[np.ndarray]:
    """Rows of held-out prompts, padded to whole batches."""
    padded = np.zeros((count * size, *known.shape[1:]), known.dtype)
    padded[: len(known)] = known[: count * size]
    return list(padded.reshape(count, size, *known.shape[1:]))

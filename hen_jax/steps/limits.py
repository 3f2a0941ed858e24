"""Why a loss is NaN: the rows of a batch that exceed what its step was compiled for."""

from collections.abc import Iterator

import numpy as np

from hen_jax.core.types import SHARED, Batch, RowLimits


def beyond_limits(
    batch: Batch,
    capacity: int | None = None,
    reach: RowLimits | None = None,
    window: int | None = None,
) -> list[str]:
    """One line for each limit that a row exceeds; the losses make NaN of such rows.

    For whoever finds a loss or a gradient that is not finite and has the batch on the host.

    Args:
      batch: numpy arrays, `[B, T]` or with more axes before (an episode's).
      capacity: the most positions that a row trains (`sft_loss`); None: any number.
      reach: what documents must not exceed; None: nothing.
      window: the shortest window of the model's layers; None: they see a whole row.
    """
    length = np.shape(batch.segments)[-1]
    fields = (batch.mask, batch.segments, batch.positions)
    rows = zip(*(np.asarray(field).reshape(-1, length) for field in fields), strict=True)
    return [
        f"row {number} {what}"
        for number, (mask, segments, positions) in enumerate(rows)
        for what in (
            *_over(mask, segments, capacity, reach),
            *_unseen(segments, positions, window),
        )
    ]


def _over(
    mask: np.ndarray, segments: np.ndarray, capacity: int | None, reach: RowLimits | None
) -> Iterator[str]:
    documents = np.unique(segments[segments > 0], return_counts=True)[1]
    found = [("trains {} positions", int((mask > 0).sum()), "capacity", capacity)]
    if reach is not None:
        longest, prefix = int(documents.max(initial=0)), int((segments == SHARED).sum())
        found += [
            (
                "has a document of {} positions of its own",
                longest,
                "reach.document",
                reach.document,
            ),
            ("shares a prefix of {} positions", prefix, "reach.prefix", reach.prefix),
            ("holds {} documents", len(documents), "reach.documents", reach.documents),
        ]
    for what, size, name, most in found:
        if most is not None and size > most:
            yield f"{what.format(size)}, {name} is {most}"


def _unseen(segments: np.ndarray, positions: np.ndarray, window: int | None) -> Iterator[str]:
    prefix, t = (segments == SHARED).sum(), np.arange(len(segments))
    if window is None or not prefix:
        return
    far = (segments > 0) & (t > positions) & (t >= window) & (positions - window + 1 < prefix)
    if far.any():
        yield (
            f"shares a prefix that its document {segments[far.argmax()]} cannot see whole: the "
            f"window is {window}; pack rows without a shared prefix"
        )

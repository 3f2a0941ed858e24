"""Requests as the arrays of the rows that they become."""

from collections.abc import Iterable, Sequence

import numpy as np

from hen_jax.sampling.logits import PROMPT, row_sampling
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Rows, Slots


def rows_from(requests: Sequence[Request], slots: Slots) -> Rows:
    """The requests as rows that have drawn nothing yet; numpy arrays.

    Raises:
      InputError: more stop tokens or biased tokens than there is room for.
    """
    stop = np.full((len(requests), slots.stops), -1, np.int32)
    for row, request in zip(stop, requests, strict=True):
        row[: len(request.stop)] = request.stop

    def column(values: Iterable[int], dtype: type = np.int32) -> np.ndarray:
        return np.asarray(list(values), dtype)

    return Rows(
        column(request.prompt[-1] for request in requests),
        np.zeros(len(requests), np.int32),
        column(request.max_new_tokens for request in requests),
        column(len(request.prompt) + request.max_new_tokens for request in requests),
        stop,
        column((request.seed for request in requests), np.uint32),
        row_sampling([request.sampling for request in requests], slots.biases),
        gate_rows([request.adapter.gate for request in requests], len(requests), slots.columns),
    )


def prompt_marks(requests: Sequence[Request], rows: int, vocabulary: int) -> np.ndarray:
    """`[rows, V]`: which tokens stand in each prompt."""
    marks = np.zeros((rows, vocabulary), np.uint8)
    for row, request in zip(marks, requests, strict=False):
        row[list(request.prompt)] = PROMPT
    return marks


def gate_rows(gates: Sequence[Sequence[float]], rows: int, columns: int) -> np.ndarray:
    """`[rows, columns]` float32: the factors of each row, and zeros where it says none."""
    whole = np.zeros((rows, columns), np.float32)
    for row, gate in zip(whole, gates, strict=False):
        row[: len(gate)] = gate
    return whole

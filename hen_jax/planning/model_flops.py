"""The floating-point operations that a model's training step needs, whoever computes it."""

from collections.abc import Sequence
from typing import NamedTuple

from hen_jax.models.config import DecoderConfig, LoraConfig


class RowShape(NamedTuple):
    """The rows of one step over all chips."""

    rows: int
    length: int  # tokens per row
    trained: int  # positions per row that meet the vocabulary


def training_flops(config: DecoderConfig, lora: LoraConfig | None, rows: RowShape) -> float:
    """Forward and backward, nothing recomputed; two per multiplication.

    A product with a trained matrix costs three times its forward pass, one with a frozen matrix
    twice (no gradient of the matrix), attention three times. Each row counts as one document: what
    packing leaves out, no kernel here skips.
    """
    return _flops(config, lora, rows, matrices=3 if lora is None else 2, rest=3)


def scoring_flops(config: DecoderConfig, lora: LoraConfig | None, rows: RowShape) -> float:
    """The forward pass alone, as of a reference policy."""
    return _flops(config, lora, rows, matrices=1, rest=1)


def _flops(
    config: DecoderConfig, lora: LoraConfig | None, rows: RowShape, *, matrices: int, rest: int
) -> float:
    """`matrices` and `rest` are how often products with the model's matrices, and all others, cost
    their forward pass."""
    tokens = rows.rows * rows.length
    blocks = 2 * config.layers * sum(linear_sizes(config).values()) * tokens
    outputs = len(config.score_labels) if config.score_head else config.vocab_size
    head = 2 * config.width * outputs * rows.rows * rows.trained
    attention = rows.rows * sum(
        attention_flops(config, rows.length, window) for window in config.windows
    )
    adapters = 0 if lora is None else 2 * config.layers * _adapter_size(config, lora) * tokens
    return float(matrices * (blocks + head) + rest * (attention + adapters))


def decoding_flops(config: DecoderConfig, lora: LoraConfig | None, rows: int, places: int) -> float:
    """One token of each of `rows` rows whose caches are full: `places` keys each, or the window."""
    products = scoring_flops(config, lora, RowShape(rows, 1, 1))
    one = rows * sum(attention_flops(config, 1, window) for window in config.windows)
    seen = sum(min(places, window or places) for window in config.windows)
    return products - one + 4.0 * config.heads * config.head_dim * seen * rows


def row_flops(config: DecoderConfig, lora: LoraConfig | None, length: int) -> float:
    """`training_flops` of one full row, every position of which trains."""
    return training_flops(config, lora, RowShape(1, length, length))


def attention_flops(config: DecoderConfig, length: int, window: int | None) -> float:
    """Both products of one layer's attention over one row, for pairs that may see each other."""
    return 4.0 * config.heads * config.head_dim * visible_pairs(length, window)


def visible_pairs(length: int, window: int | None) -> int:
    """Pairs of a query and a key it sees: `visible_pairs(4, None) == 10`, `(4, 2) == 7`."""
    window = length if window is None else min(window, length)
    return window * (window + 1) // 2 + (length - window) * window


def linear_sizes(config: DecoderConfig) -> dict[str, int]:
    """Numbers in each kernel of a block."""
    return {name: rows * columns for name, (rows, columns) in _shapes(config).items()}


def _adapter_size(config: DecoderConfig, lora: LoraConfig) -> int:
    shapes: Sequence[tuple[int, int]] = [_shapes(config)[name] for name in lora.targets]
    return sum(lora.rank * (rows + columns) for rows, columns in shapes)


def _shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    D, F = config.width, config.mlp_width
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "q": (D, queries),
        "k": (D, keys),
        "v": (D, keys),
        "o": (queries, D),
        "gate": (D, F),
        "up": (D, F),
        "down": (F, D),
    }

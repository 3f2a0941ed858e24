"""What shape a decoder has, and how it is run: one frozen record each, for every family."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama-3.1 rope scaling: low frequencies are divided by `factor`, high ones kept.

    Wavelengths longer than `original_length / low_freq_factor` are scaled, shorter than
    `original_length / high_freq_factor` are kept, and between the two they are blended linearly.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer with grouped-query attention, RMSNorm, rope and a gated mlp."""

    family: str
    vocab_size: int
    width: int  # D
    layers: int  # L
    heads: int  # N
    kv_heads: int  # K, divides N
    head_dim: int  # H
    mlp_width: int  # F
    max_length: int  # positions the model was trained for
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    activation: Literal["silu"] = "silu"
    tied_head: bool = True  # the unembedding is the embedding


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters: `y = x W + (alpha / rank) (x A) B`; `A [in, R]`, `B [R, out]` starts at 0.

    `targets` name linear layers of a block: any of q, k, v, o, gate, up, down.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")

    @property
    def scale(self) -> float:
        """The factor on the low-rank product: `alpha / rank`."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a decoder computes. None of it changes what is computed, but for rounding.

    Norms, softmax and losses are always float32; parameters keep the dtype they are stored in and
    are cast to `compute_dtype` where they are used.

    `remat` names what the backward pass recomputes: "none" keeps every activation, "dots" keeps the
    outputs of matrix products with parameters, "block" keeps only each block's input.
    """

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "block"] = "block"

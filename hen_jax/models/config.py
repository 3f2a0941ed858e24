"""What shape a decoder has, and how it is run: one frozen record each, for every family."""

import dataclasses
from typing import Literal

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, check_ranges
from hen_jax.empathy.patterns import DIMENSIONS


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
class LinearScaling:
    """Every rope frequency is divided by `factor` (Chen et al., 2023)."""

    factor: float


@dataclasses.dataclass(frozen=True)
class LongRope:
    """LongRoPE (Ding et al., 2024): each frequency is divided by a factor of its own.

    A document longer than `original_length` is read with the `long` factors, any other with the
    `short` ones; cosines and sines are multiplied by `attention_factor` in both.
    """

    short: tuple[float, ...]  # one factor per rotated pair
    long: tuple[float, ...]
    original_length: int
    attention_factor: float


SCORE_LABELS = ("score",)
"""What a reward model's one output is called: a number without bounds."""

RATING_LABELS = ("rating",)
"""The same of a model whose output is, through a sigmoid, a rating in [0, 1]."""

DIMENSION_LABELS = tuple(DIMENSIONS)
"""The same of a model with such an output for each SENSE-7 dimension."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer with grouped-query attention, RMSNorm, rope and a gated mlp.

    The defaults describe Llama; what other families do otherwise is a field each.
    """

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
    rope_scaling: RopeScaling | LinearScaling | LongRope | None = None
    activation: Literal["silu", "gelu_tanh"] = "silu"
    tied_head: bool = True  # the unembedding is the embedding
    score_head: bool = False  # a scalar head instead of the unembedding: a reward model
    score_labels: tuple[str, ...] = SCORE_LABELS  # what each output of that head is
    qkv_bias: bool = False
    qk_norm: bool = False  # RMSNorm over each head of q and k, before rope
    rotary_dim: int | None = None  # how many of the H are rotated; None: all
    window: int | None = None  # a query sees itself and the `window - 1` tokens before it
    global_layers: tuple[int, ...] = ()  # layers that see everything in spite of `window`
    local_rope_theta: float | None = None  # of the layers with a window, unscaled; None: as global
    attention_scalar: float | None = None  # scores are divided by its root; None: by that of H
    attention_softcap: float | None = None  # c tanh(score / c)
    final_softcap: float | None = None  # of the logits
    scaled_embedding: bool = False  # token vectors times the root of D
    unit_offset_norm: bool = False  # RMSNorm multiplies by 1 + scale
    post_norms: bool = False  # a norm after attention and after the mlp as well

    @property
    def attention_scale(self) -> float:
        """The factor on the products of queries and keys."""
        return (self.attention_scalar or self.head_dim) ** -0.5

    @property
    def rates(self) -> bool:
        """Whether its scores are logits of ratings in [0, 1], overall or by dimension."""
        return self.score_head and self.score_labels != SCORE_LABELS

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer; None where it sees everything."""
        return tuple(
            None if layer in self.global_layers else self.window for layer in range(self.layers)
        )


SCALES = (1e-6, 1e6)
"""The least and the largest factor on a low-rank product; usual ones are 0.1 to 16."""


def is_usable(scale: float) -> bool:
    """Whether an adapter trains with that factor; NaN, 0 and negative ones are not."""
    return SCALES[0] <= scale <= SCALES[1]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters: `y = x W + (alpha / rank) (x A) B`; `A [in, R]`, `B [R, out]`.

    `targets` name linear layers of a block: any of q, k, v, o, gate, up, down. `rank_stabilised`
    divides by the root of the rank instead (rsLoRA; Kalajdzievski, 2023). One of the two factors
    starts at 0, so that the adapter changes nothing at first: B, or under `init="b_random"` A, with
    B normal of variance 1 / R (Hayou et al., 2024, "Init[B]").

    Raises:
      InputError: a rank below 1, no target or one named twice, or a factor that trains nothing (0),
        the wrong way (negative), or beyond what float32 computes with.
    """

    rank: Count = 16  # R, columns of A
    alpha: float = 32.0  # over the rank: the factor on the product
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")  # which layers
    rank_stabilised: bool = False  # divide alpha by the root of the rank (rsLoRA)
    init: Literal["a_random", "b_random"] = "a_random"  # which factor starts at random; other: 0

    def __post_init__(self):
        check_ranges(self)
        if not is_usable(self.scale):
            raise InputError(
                f"adapter alpha is {self.alpha} at rank {self.rank}: the factor on the adapter is "
                f"{self.scale:.3g}, and must lie between {SCALES[0]:g} and {SCALES[1]:g}; alpha is "
                "usually 1 or 2 times the rank"
            )
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError(f"adapter targets are {self.targets!r}; name each layer once")

    @property
    def scale(self) -> float:
        """The factor on the low-rank product: `alpha / rank`, or `alpha / sqrt(rank)`."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a decoder computes. None of it changes what is computed, but for rounding.

    Norms, softmax and losses are always float32; parameters keep the dtype they are held in
    (`config.model`: float32 for what trains) and are cast to `compute_dtype` where they are used.

    `remat` names what the backward pass recomputes: "none" keeps every activation, "dots" keeps the
    outputs of matrix products with parameters, "attention" keeps each block's input, the residual
    stream after its attention and what a fused kernel needs not to run again, "block" keeps only
    each block's input. The first and the last are the fastest and the smallest.

    `attention` names the back-end: "xla" forms all scores at once; "chunked" those of a few hundred
    queries at a time, so that memory is linear in the length, and differentiates both ways; both
    leave out keys that no document or window reaches. "splash" is the fused kernel of TPUs, "cudnn"
    that of NVIDIA GPUs.

    `base_dtype` "int8" holds the blocks' kernels in eight bits (see `models/quantised.py`): half
    the memory of bfloat16, for a base that stays frozen.
    """

    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # of products and activations
    remat: Literal["none", "dots", "attention", "block"] = "block"  # what is recomputed
    attention: Literal["xla", "chunked", "splash", "cudnn"] = "xla"  # which back-end
    base_dtype: Literal["stored", "int8"] = "stored"  # of a frozen base's kernels

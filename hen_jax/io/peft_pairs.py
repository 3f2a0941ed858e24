"""Low-rank pairs `A [R, in]`, `B [out, R]` of other tools, brought to one rank and one factor."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.rounding import rounded
from hen_jax.io.peft_settings import PeftSettings
from hen_jax.models.config import LoraConfig, is_usable


class LoraPair(NamedTuple):
    """One layer's low-rank product `scale B A`, as PEFT lays it out."""

    a: np.ndarray  # [R, in]
    b: np.ndarray  # [out, R]
    scale: float


def stacked(a: Sequence[np.ndarray], b: Sequence[np.ndarray], spans: Sequence[slice], out: int):
    """One `A` and one `B` for a fused layer whose parts have `a[i]`, `b[i]` and lie at `spans[i]`.

    Two parts of rank 3 give rank 6: `A` is the first above the second, `B` has the one's rows in
    its columns 0 to 2 and the other's in 3 to 5. The product is that of each part, exactly.
    """
    ranks = [part.shape[0] for part in a]
    whole = np.zeros((out, sum(ranks)), b[0].dtype)
    start = 0
    for rank, span, part in zip(ranks, spans, b, strict=True):
        whole[span, start : start + rank] = part
        start += rank
    return np.concatenate(a), whole


def split_pairs(layers: Sequence[LoraPair], spans: Sequence[slice]) -> list[list[LoraPair] | None]:
    """For each part of a fused layer its pairs, one per layer; None where it is not adapted.

    Where `B` is what `stacked` makes, in every layer, each part gets its own rows of `A` back;
    else each part shares the whole of `A`. A part without any number in `B` counts as not adapted
    if others have some.
    """
    live = [any(pair.b[span].any() for pair in layers) for span in spans]
    if len(spans) == 1 or not any(live):
        live = [True] * len(spans)
    for parts in ([True] * len(spans), live):
        rank, rest = divmod(layers[0].a.shape[0], sum(parts))
        blocks = [slice(n * rank, (n + 1) * rank) for n in range(sum(parts))]
        owned = [blocks.pop(0) if part else None for part in parts]
        if not rest and all(_fits(pair, spans, owned) for pair in layers):
            return [
                None
                if own is None
                else [LoraPair(pair.a[own], pair.b[span, own], pair.scale) for pair in layers]
                for span, own in zip(spans, owned, strict=True)
            ]
    return [
        [LoraPair(pair.a, pair.b[span], pair.scale) for pair in layers] if part else None
        for span, part in zip(spans, live, strict=True)
    ]


def same_rank(pairs: Sequence[LoraPair | None]) -> list[LoraPair]:
    """The pairs of a module's layers filled up with zeros to their largest rank.

    None, where a layer has no adapter, becomes a pair of zeros: no change.
    """
    widest = max((pair for pair in pairs if pair is not None), key=lambda pair: pair.a.shape[0])
    nothing = LoraPair(np.zeros_like(widest.a), np.zeros_like(widest.b), widest.scale)
    rank = widest.a.shape[0]
    return [nothing if pair is None else _widen(pair, rank) for pair in pairs]


def _widen(pair: LoraPair, rank: int) -> LoraPair:
    more = rank - pair.a.shape[0]
    a, b = np.pad(pair.a, [(0, more), (0, 0)]), np.pad(pair.b, [(0, 0), (0, more)])
    return LoraPair(a, b, pair.scale)


def common_rank(settings: PeftSettings, targets: Mapping[str, Sequence[LoraPair]]) -> LoraConfig:
    """The one rank, the largest, and the alpha that give `settings`' own factor.

    Where nothing can be trained with that factor (0, which makes an adapter without effect, or a
    negative one) ours is 1, and all of it goes into `lora_b`.
    """
    rank = max(pair.a.shape[0] for pairs in targets.values() for pair in pairs)
    grown = rank / settings.rank
    alpha = settings.alpha
    if grown != 1:
        alpha *= grown**0.5 if settings.rank_stabilised else grown
    root = rank**0.5 if settings.rank_stabilised else float(rank)
    if not is_usable(alpha / root):
        alpha = root
    return LoraConfig(rank, alpha, tuple(targets), settings.rank_stabilised)


def leaves(lora: LoraConfig, pairs: Sequence[LoraPair]) -> tuple[np.ndarray, np.ndarray]:
    """Our `lora_a [L, in, R]` and `lora_b [L, R, out]`, filled up with zeros to the rank of `lora`.

    A factor other than `lora.scale` goes into `lora_b`, in its dtype.
    """
    first = pairs[0]
    a = np.zeros((len(pairs), first.a.shape[1], lora.rank), first.a.dtype)
    b = np.zeros((len(pairs), lora.rank, first.b.shape[0]), first.b.dtype)
    for layer, pair in enumerate(pairs):
        rank, ratio = pair.a.shape[0], pair.scale / lora.scale
        # Alphas of fused layers come back as quotients, off by a rounding.
        same = abs(ratio - 1) < 1e-6
        a[layer, :, :rank] = pair.a.T
        if same:
            b[layer, :rank] = pair.b.T
        else:
            b[layer, :rank] = rounded(pair.b.T * ratio, b.dtype, "a lora_B with its factor")
    return a, b


def _fits(pair: LoraPair, spans: Sequence[slice], owned: Sequence[slice | None]) -> bool:
    """Whether each part's rows of `B` are zero outside the columns it owns."""
    for span, own in zip(spans, owned, strict=True):
        outside = pair.b[span].copy()
        if own is not None:
            outside[:, own] = 0
        if outside.any():
            return False
    return True

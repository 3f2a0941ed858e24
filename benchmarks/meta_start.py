"""The adapter that both sides of `meta_vs_torch.py` start from; numpy only."""

import numpy as np

TARGETS = {
    "q": "attn",
    "k": "attn",
    "v": "attn",
    "o": "attn",
    "gate": "mlp",
    "up": "mlp",
    "down": "mlp",
}
"""Linear layer -> the part of the block that holds it."""


def start(shapes: dict[str, tuple[int, int]], layers: int, rank: int, seed: int) -> dict:
    """Leaves `q/a [L, in, R]`, `q/b [L, R, out]`, ... by name, for `shapes[q] = (in, out)`.

    `b` is small but not zero, as it would be after some training: at zero `a` has no gradient.
    """
    generator = np.random.default_rng(seed)
    leaves = {}
    for name in TARGETS:
        fan_in, fan_out = shapes[name]
        a = generator.standard_normal((layers, fan_in, rank), np.float32) * fan_in**-0.5
        leaves[f"{name}/a"] = a.astype(np.float32)
        leaves[f"{name}/b"] = 1e-3 * generator.standard_normal((layers, rank, fan_out), np.float32)
    return leaves

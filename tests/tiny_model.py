"""A two-layer decoder and batches of random documents, for tests of meaning."""

import jax
import jax.numpy as jnp
import numpy as np

from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Batch
from hen_jax.data.examples import Example
from hen_jax.data.packing import pack_row, stack_rows
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import Decoder, Split, split

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=61,
    width=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,  # heads x head_dim is not the width, so that neither passes for the other
    mlp_width=20,
    max_length=128,
    norm_eps=1e-5,
    rope_theta=1e4,
)
LORA = LoraConfig(rank=3, alpha=6.0)


def tiny(lora: LoraConfig | None = None, execution: Execution = Execution()) -> Split:
    return split(Decoder(jax.random.key(0), CONFIG, lora, execution))


def stirred(adapter, seed: int = 1):
    """The adapter with every leaf random, so that it does something."""
    leaves = flatten(adapter)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return unflatten(
        {
            p: 0.3 * jax.random.normal(k, x.shape)
            for k, (p, x) in zip(keys, leaves.items(), strict=True)
        }
    )


def documents(lengths: list[int], seed: int = 0) -> list[Example]:
    """Documents of random tokens, about the last half of each trained."""
    rng = np.random.default_rng(seed)
    return [
        Example(
            rng.integers(0, CONFIG.vocab_size, n + 1).astype(np.int32),
            np.arange(n + 1) > n // 2,
            f"document {i}",
            f"group {i}",
        )
        for i, n in enumerate(lengths)
    ]


def batch_of(rows: list[list[Example]], row_length: int) -> Batch:
    return jax.tree.map(jnp.asarray, stack_rows([pack_row(row, row_length) for row in rows]))

"""Distilling empathy: SFT on a large model's good replies, then DPO of them over human ones.

    hen build distil --input dataset.csv --writer chatgpt --out runs/distil-data
    hen run --config=distil:sft --workdir=runs/distil-sft
    hen run --config=distil:dpo --workdir=runs/distil-dpo

The numbers are the published ones (rank 8, 5e-5, 3 epochs, batch 2, beta 0.1); the base is SmolLM2
and not theirs. `dataset.csv` is the file of rated replies of Xie et al. (2025), which you bring.
Win rates: `hen compare`, then `hen judge --mode pairwise`, which asks in both orders.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["sft", "dpo"] = "sft") -> ConfigDict:
    """`sft`, or `dpo`, which starts from it."""
    config = ConfigDict()
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.adapter = ConfigDict({"rank": 8, "alpha": 16.0})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 5e-5, "warmup": 0.1, "final": 0.1})
    config.epochs = 3.0
    config.loop = ConfigDict({"checkpoint_every": 50})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    config.data = ConfigDict({"row_length": 512, "batch_size": 2})
    if variant == "sft":
        config.recipe = "sft"
        config.start = None
        config.sources = ({"schema": "completion", "path": "runs/distil-data/sft.jsonl"},)
    else:
        config.recipe = "preference"
        config.start = "runs/distil-sft"
        config.sources = ({"schema": "preference", "path": "runs/distil-data/pairs.jsonl"},)
        config.preference = ConfigDict({"loss": "dpo", "beta": 0.1})
    return config

"""Muffin: helpful candidates above unhelpful ones, with LoRA, after `hen build muffin`.

    hen build muffin --model models/smollm2-135m --input shipped:hed/hed.en.jsonl --schema hed \\
        --out runs/candidates
    hen run --config=muffin --workdir=runs/muffin

Candidates of SmolLM2-135M with feedback of its own, which is worth little: name a better judge with
`--judge`. Build again with the trained adapter for the unhelpful rate after training.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["smollm2", "tiny"] = "smollm2") -> ConfigDict:
    """`smollm2` or `tiny`."""
    config = ConfigDict()
    config.recipe = "muffin"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.start = None
    config.sources = ({"schema": "candidates", "path": "runs/candidates/candidates.jsonl"},)
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 1024, "batch_size": 8})
    config.muffin = ConfigDict({"margin": 0.01, "contrastive": 1.0, "gold": 1.0})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 1e-4, "warmup": 0.1, "final": 0.1})
    config.epochs = 2.0
    config.loop = ConfigDict({"checkpoint_every": 50})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant == "tiny":
        config.model.source = "tiny"
        config.adapter = None
        config.optimizer.learning_rate = 3e-3
        config.data.row_length = 512
        config.epochs = 1.0
    return config

"""PECER: replies behind a soft prefix of personality and reactions, after `hen build traits`.

    hen build traits --input shipped:hed/hed.en.jsonl --schema hed --identifier runs/emotions \\
        --out runs/features
    hen run --config=pecer --workdir=runs/pecer

`--config.prefix.sources="('history','reaction')"` leaves the personality out, and so on: compare
the held-out losses. The gates are in the log.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["smollm2", "tiny"] = "smollm2") -> ConfigDict:
    """`smollm2` or `tiny`."""
    config = ConfigDict()
    config.recipe = "pecer"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.start = None
    config.sources = ({"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},)
    config.features = "runs/features/features.jsonl"
    config.traits = 5
    config.reactions = 8
    config.prefix = ConfigDict({"length": 4, "hidden": 32})
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 256, "batch_size": 8})
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
        config.epochs = 1.0
    return config

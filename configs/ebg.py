"""Empathizing Before Generation: SFT of the analysis, then of the reply on top of it.

    hen build ebg --model models/smollm2-135m --input shipped:hed/hed.en.jsonl --schema hed \\
        --labels hed --out runs/ebg-data
    hen run --config=ebg:stage1 --workdir=runs/ebg-1
    hen run --config=ebg:stage2 --workdir=runs/ebg-2

The first stage trains the analysis and the label, the second the reply; the analysis is only read.
`hen compare --labels hed` takes the export as `trained=ebg@adapter:exports/ebg`. Whoever writes the
analyses decides what is learnt: name a large model with `--backend`.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["stage1", "stage2", "tiny"] = "stage1") -> ConfigDict:
    """`stage1`, `stage2`, which starts from it, or `tiny`: the first with a random model."""
    config = ConfigDict()
    config.recipe = "sft"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    number = 2 if variant == "stage2" else 1
    config.start = "runs/ebg-1" if number == 2 else None
    config.sources = ({"schema": "messages", "path": f"runs/ebg-data/stage{number}.jsonl"},)
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 512, "batch_size": 8})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 1e-4, "warmup": 0.1, "final": 0.1})
    config.epochs = 3.0
    config.loop = ConfigDict({"checkpoint_every": 50})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant == "tiny":
        config.model.source = "tiny"
        config.adapter = None
        config.optimizer.learning_rate = 3e-3
    return config

"""Supervised fine-tuning with LoRA on the shipped dialogues.

    hen run --config=configs/sft.py:tiny --workdir=runs/tiny

A random model, all parameters: half a minute; held-out loss 7.6 -> 5.6.

    hen run --config=configs/sft.py --workdir=runs/sft

SmolLM2-135M. On 2 cores `--config.epochs=0.4` took 6 minutes; held-out loss 4.09 -> 3.57.

    hen run --config=sft:pod --workdir=/shared/runs/a

The same for 8 or 16 devices, as the recipes in `launch/` start it: 16 rows a batch, products in
bfloat16. No pod has run it yet; by `hen plan` it needs 1.2 of 16 GiB per chip on `v5e:4x4`.

Set `--config.adapter=None` to train all parameters. `--config.data.packing=shared_prefix` lays a
system prompt that records share once a row: two thirds of the rows for the first source alone, 95 %
for all five.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["smollm2", "pod", "tiny"] = "smollm2") -> ConfigDict:
    """`smollm2`, `pod` or `tiny`."""
    config = ConfigDict()
    config.recipe = "sft"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.sources = (
        {"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},
        {"schema": "steered", "path": "shipped:eea/distress.jsonl"},
        {"schema": "steered", "path": "shipped:eea/career.jsonl"},
        {"schema": "steered", "path": "shipped:eea/learning.jsonl"},
        {"schema": "steered", "path": "shipped:eea/writing.jsonl"},
    )
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 512, "batch_size": 2, "packing": "fewest_rows"})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 2e-3, "warmup": 0.1, "final": 0.1})
    config.epochs = 1.0
    config.loop = ConfigDict({"eval_every": 0, "checkpoint_every": 20})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant == "pod":
        config.data.batch_size = 16
        config.execution.compute_dtype = "bfloat16"
        config.epochs = 3.0
    if variant == "tiny":
        config.model.source = "tiny"
        config.sources = config.sources[:1]
        config.data.update({"row_length": 256, "batch_size": 4})
        config.adapter = None  # a random base has nothing for an adapter to steer
        config.optimizer.learning_rate = 1e-2
        config.epochs = 1.0
    return config

"""A rating model with LoRA on the shipped SENSE-7-style set: how empathetic was this perceived?

    hen run --config=regression:tiny --workdir=runs/regression-tiny

A random model, all parameters: half a minute, and little more than chance.

    hen run --config=regression --workdir=runs/regression

SmolLM2-135M, every rated reply learnt, one fold of five held out by participant. What the ratings
are worth stands in `runs/regression/regression.json`: read `mse_ratio`, the error beside that of
the constant predictor, and compare with a run that never sees the user's side:

    hen run --config=regression --config.reads=replies --workdir=runs/replies

    hen plan --config=regression:llama3_8b --topology=v5e:4x4

Llama 3.1 8B with rows of 4,096.

    hen export --run runs/regression --format hf --out exports/regression
    hen score --model exports/regression --input chats.jsonl --schema messages --out ratings.jsonl
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["smollm2", "llama3_8b", "tiny"] = "smollm2") -> ConfigDict:
    """`smollm2`, `llama3_8b` or `tiny`."""
    config = ConfigDict()
    config.recipe = "regression"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.sources = ({"schema": "sense7", "path": "shipped:sense7/conversations.jsonl"},)
    config.level = "turn"
    config.folds = ConfigDict({"count": 5, "held": 0})
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 1024, "batch_size": 4})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 3e-4, "warmup": 0.1, "final": 0.1})
    config.epochs = 4.0
    config.loop = ConfigDict({"evaluators": ("ratings",), "checkpoint_every": 50})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant == "llama3_8b":
        config.model = ConfigDict(
            {"source": "meta-llama/Llama-3.1-8B-Instruct", "dtype": "bfloat16"}
        )
        config.data.update({"row_length": 4096, "batch_size": 16})
        config.execution = ConfigDict(
            {"compute_dtype": "bfloat16", "remat": "block", "attention": "chunked"}
        )
        config.optimizer.learning_rate = 1e-4
        config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    if variant == "tiny":
        config.model.source = "tiny"
        config.adapter = None  # a random base has nothing for an adapter to steer
        config.optimizer.learning_rate = 3e-3
        config.epochs = 2.0
    return config

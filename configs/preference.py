"""Direct preference optimisation with LoRA on the shipped pairs, plain and crossed.

    hen run --config=preference:tiny --workdir=runs/preference-tiny

A random model, all parameters: under a minute, and no more than chance.

    hen run --config=preference --workdir=runs/preference --config.start=runs/sft

DPO of SmolLM2-135M from an SFT run with the same adapter, which is its reference. What it learnt
to prefer stands in `runs/preference/preferences.json`, beside what a bag of words reaches: read
`crossed`, where that is one half. `--config.preference.loss=kto`, and the other losses:
docs/preference.md.

    hen plan --config=preference:llama3_8b --topology=v5e:4x4

Llama 3.1 8B, 16 rows of 4,096 with the reference in the step: 4.72 of 16 GiB per chip, recompute
factor 1.40; at best 2.7 s per step, bound by memory (MFU 0.38).

    hen plan --config=preference:llama3_70b --topology=v5p:4x4x4

Llama 3.1 70B, 64 rows: 17.7 of 95 GiB per chip, recompute factor 1.33; at best 5.2 s per step
(MFU 0.75).
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(
    variant: Literal["smollm2", "llama3_8b", "llama3_70b", "tiny"] = "smollm2",
) -> ConfigDict:
    """`smollm2`, `llama3_8b`, `llama3_70b` or `tiny`."""
    config = ConfigDict()
    config.recipe = "preference"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.start = None
    crossed = tuple(
        {"schema": "crossed", "path": f"shipped:crossed/{kind}.en.jsonl"}
        for kind in ("level", "emotion", "role", "fact")
    )
    steered = tuple(
        {"schema": "steered", "path": f"shipped:eea/{context}.hard.jsonl"}
        for context in ("distress", "career", "learning", "writing")
    )
    config.sources = (*crossed, {"schema": "hed", "path": "shipped:hed/hed.en.jsonl"}, *steered)
    config.crossings = ("role", "personality", "statement", "turn")
    config.level = "turn"
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 768, "batch_size": 8})
    config.preference = ConfigDict({"loss": "dpo"})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 1e-4, "warmup": 0.1, "final": 0.1})
    config.epochs = 2.0
    config.loop = ConfigDict({"evaluators": ("preferences",), "checkpoint_every": 50})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant.startswith("llama3"):
        size = variant.removeprefix("llama3_").upper()
        config.model = ConfigDict(
            {"source": f"meta-llama/Llama-3.1-{size}-Instruct", "dtype": "bfloat16"}
        )
        config.data.update({"row_length": 4096, "batch_size": 64 if size == "70B" else 16})
        config.execution = ConfigDict(
            {"compute_dtype": "bfloat16", "remat": "block", "attention": "chunked"}
        )
        config.optimizer.learning_rate = 5e-6
        config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    if variant == "tiny":
        config.model.source = "tiny"
        config.sources = crossed
        config.crossings = ()
        config.adapter = None  # a random base has nothing for an adapter to steer
        config.optimizer.learning_rate = 3e-3
        config.data.row_length = 512
        config.epochs = 1.0
    return config

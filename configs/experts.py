"""Expert adapters: one LoRA per context on a frozen base, trained together in one program.

    hen run --config=experts:tiny --workdir=runs/experts-tiny

A random model: half a minute.

    hen run --config=experts --workdir=runs/experts

SmolLM2-135M and the four contexts of the shipped steered conversations. The shared adapter that
experts are compared with is one expert with all sources: `--config=experts:shared`.

    hen run --config=experts:preference --workdir=runs/experts-dpo --config.start=runs/experts

DPO of each expert on its own context's pairs, the hard ones too, from where SFT left it, which is
its reference. `--config.preference.sft=0.2` mixes the cross-entropy of what was chosen in;
`--config.preference.loss=kto` and the others: docs/preference.md.

    hen plan --config=experts:llama3_8b --topology=v5e:4x4

Four experts of rank 16 on Llama 3.1 8B, 16 rows of 2,048: 5.6 of 16 GiB per chip. What serving them
needs: docs/serving.md.

    hen export --run runs/experts --expert distress --format peft --out exports/distress
"""

from typing import Literal

from ml_collections import ConfigDict

CONTEXTS = ("distress", "career", "learning", "writing")


Variant = Literal["smollm2", "shared", "preference", "preference_shared", "llama3_8b", "tiny"]


def get_config(variant: Variant = "smollm2") -> ConfigDict:
    """`smollm2`, `preference`, one adapter for all in either way, `llama3_8b` or `tiny`."""
    config = ConfigDict()
    config.recipe = "experts"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.experts = tuple(
        {
            "name": context,
            "sources": ({"schema": "steered", "path": f"shipped:eea/{context}.jsonl"},),
        }
        for context in CONTEXTS
    )
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 768, "batch_size": 1, "packing": "fewest_rows"})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 2e-3, "warmup": 0.1, "final": 0.1})
    config.epochs = 3.0
    config.loop = ConfigDict({"eval_every": 0, "checkpoint_every": 20})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant.startswith("preference"):
        config.recipe = "experts_preference"
        config.start = None
        config.experts = tuple(
            {"name": one["name"], "sources": (*one["sources"], _hard(one["name"]))}
            for one in config.experts
        )
        config.level = "turn"
        config.crossings = ("turn",)
        config.preference = ConfigDict({"loss": "dpo"})
        config.data = ConfigDict({"row_length": 768, "batch_size": 2})
        config.optimizer.learning_rate = 1e-4
        config.epochs = 1.0
    if variant.endswith("shared"):
        rows = int(config.data.to_dict()["batch_size"])
        sources = tuple(source for one in config.experts for source in one["sources"])
        config.experts = ({"name": "shared", "sources": sources},)
        config.data = ConfigDict(config.data.to_dict() | {"batch_size": len(CONTEXTS) * rows})
    if variant == "llama3_8b":
        config.model = ConfigDict(
            {"source": "meta-llama/Llama-3.1-8B-Instruct", "dtype": "bfloat16"}
        )
        config.data.update({"row_length": 2048, "batch_size": 4})
        config.execution = ConfigDict(
            {"compute_dtype": "bfloat16", "remat": "block", "attention": "chunked"}
        )
        config.optimizer.learning_rate = 1e-4
        config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    if variant == "tiny":
        config.model.source = "tiny"
        config.data.update({"row_length": 512, "batch_size": 1})
        config.optimizer.learning_rate = 1e-2
        config.epochs = 1.0
    return config


def _hard(context: str) -> dict[str, str]:
    return {"schema": "steered", "path": f"shipped:eea/{context}.hard.jsonl"}

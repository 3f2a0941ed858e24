"""A reward model with LoRA on the shipped crossed pairs and on crossings built from other sets.

    hen run --config=reward:tiny --workdir=runs/reward-tiny

A random model, all parameters: half a minute, and no more than chance.

    hen run --config=reward --workdir=runs/reward

SmolLM2-135M. `--config.start=runs/sft` starts from an SFT run with the same adapter. What the
scores are worth stands in `runs/reward/reward.json`, beside what a bag of words reaches: read
`crossed`, where that is one half. `--config.reads=replies` trains the control that never sees what
was asked.

    hen run --config=reward:distress --workdir=runs/reward-distress
    hen run --config=reward:shared --workdir=runs/reward-shared --config.level=turn

Preference models of the empathetic expert adapters: of one context, or one for all four, on steered
conversations, whole or turn by turn.

    hen plan --config=reward:llama3_8b --topology=v5e:4x4

Llama 3.1 8B with rows of 4,096, so two replies of a prompt of any length: 4.6 of 16 GiB per chip.

    hen export --run runs/reward --format hf --out exports/reward
    hen score --model exports/reward --input pairs.jsonl --schema preference --out scores.jsonl
"""

from typing import Literal

from ml_collections import ConfigDict

CONTEXTS = ("distress", "career", "learning", "writing")

Variant = Literal[
    "smollm2", "llama3_8b", "tiny", "shared", "distress", "career", "learning", "writing"
]


def get_config(variant: Variant = "smollm2") -> ConfigDict:
    """`smollm2`, `llama3_8b`, `tiny`, a preference model of a context, or one `shared` by all."""
    config = ConfigDict()
    config.recipe = "reward"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    crossed = tuple(
        {"schema": "crossed", "path": f"shipped:crossed/{kind}.en.jsonl"}
        for kind in ("level", "emotion", "role", "fact")
    )
    hard = _steered(CONTEXTS, "hard.jsonl")
    config.sources = (*crossed, {"schema": "hed", "path": "shipped:hed/hed.en.jsonl"}, *hard)
    config.crossings = ("role", "personality", "statement", "turn")
    config.plain = False  # with the sources' own pairs a bag of words is right at .66 of all
    config.level = "turn"
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"row_length": 768, "batch_size": 8})
    config.reward = ConfigDict({"beta": 1.0, "centring": 0.01})
    config.microbatches = 1
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 3e-4, "warmup": 0.1, "final": 0.1})
    config.epochs = 2.0
    config.loop = ConfigDict({"evaluators": ("preferences",), "checkpoint_every": 50})
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
    if variant in ("shared", *CONTEXTS):
        contexts = CONTEXTS if variant == "shared" else (variant,)
        steered = (*_steered(contexts, "jsonl"), *_steered(contexts, "hard.jsonl"))
        # What a level of empathy is worth is told by the items where nothing else differs.
        config.sources = (*steered, *(one for one in crossed if "level" in one["path"]))
        config.crossings, config.plain = ("turn",), True
        config.level = "conversation"
        config.data.row_length = 2048
        config.execution.attention = "chunked"
    if variant == "tiny":
        config.model.source = "tiny"
        config.sources = crossed
        config.crossings = ()
        config.adapter = None  # a random base has nothing for an adapter to steer
        config.optimizer.learning_rate = 3e-3
        config.data.row_length = 512
        config.epochs = 1.0
    return config


def _steered(contexts: tuple[str, ...], suffix: str) -> tuple[dict[str, str], ...]:
    return tuple(
        {"schema": "steered", "path": f"shipped:eea/{context}.{suffix}"} for context in contexts
    )

"""Router: which expert a conversation is for, by a linear head on the frozen base's states.

    hen run --config=router:tiny --workdir=runs/router-tiny

A random model: seconds.

    hen run --config=router --workdir=runs/router

SmolLM2-135M and the user's first two messages of the shipped steered conversations, one fold of
five by conversation held out: a minute or two on 2 cores. What it is worth stands in
`runs/router/router.json` beside a bag of words; `runs/router/router` is what serving opens.

    hen run --config=router:unknown --workdir=runs/router-unknown

The same, with the statements of the shipped HED set as conversations of no expert.
"""

from typing import Literal

from ml_collections import ConfigDict

CONTEXTS = ("distress", "career", "learning", "writing")


def get_config(variant: Literal["smollm2", "unknown", "tiny"] = "smollm2") -> ConfigDict:
    """`smollm2`, `unknown` or `tiny`."""
    config = ConfigDict()
    config.recipe = "router"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.routes = tuple(
        {
            "name": context,
            "sources": ({"schema": "steered", "path": f"shipped:eea/{context}.jsonl"},),
        }
        for context in CONTEXTS
    )
    config.reading = ConfigDict({"turns": 2, "longest": 512})
    config.folds = ConfigDict({"count": 5, "held": 0})
    config.optimizer = ConfigDict({"learning_rate": 3e-2, "warmup": 0.05})
    config.updates = 300
    config.ridge = 1e-2
    config.loop = ConfigDict({"evaluators": ("routing",), "checkpoint_every": 1000})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant == "unknown":
        config.unknown = ({"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},)
    if variant == "tiny":
        config.model.source = "tiny"
        config.updates = 100
    return config

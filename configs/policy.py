"""Reinforcement learning from rewards: GRPO by default, PPO and others by settings.

    hen run --config=policy:tiny --workdir=runs/policy-tiny

A random model and one rule: be brief. A minute, most of it compiling.

    hen run --config=policy:ppo_tiny --workdir=runs/ppo-tiny

The same by PPO: a value head, two passes over each rollout, KL in the reward.

    hen run --config=policy --workdir=runs/policy

SmolLM2-135M with LoRA on the shipped English statements, by rules alone; the language of a reply is
a probe that training never sees. `--config.start=runs/sft` goes on from an SFT run with the same
adapter; a reward model joins as
`--config.rewards[0].kind=model --config.rewards[0].path=exports/reward`.

    hen plan --config=policy:llama3_8b --topology=v5e:4x4

Llama 3.1 8B, LoRA, GRPO with 128 prompts x 8 replies of 512 tokens. The update takes 5.2 of 16 GiB
per chip, at best 20 s; the drawing 10.5 GiB with 1,024 replies at a time, cache included.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(
    variant: Literal["smollm2", "llama3_8b", "ppo_llama3_8b", "tiny", "ppo_tiny"] = "smollm2",
) -> ConfigDict:
    """`smollm2`, `llama3_8b`, `ppo_llama3_8b`, `tiny` or `ppo_tiny`."""
    config = ConfigDict()
    config.recipe = "policy"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.sources = ({"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},)
    config.rewards = (
        {"kind": "length", "low": 20, "high": 160},
        {"kind": "repetition", "weight": 0.5},
        {"kind": "formulas", "weight": 0.5},
        {"kind": "language", "weight": 0.5, "held_out": True},
    )
    config.adapter = ConfigDict({"rank": 16, "alpha": 32.0})
    config.data = ConfigDict({"prompt_length": 256, "batch_size": 8, "held_out": 32})
    config.rollout = ConfigDict({"replies": 8, "max_new_tokens": 96, "slots": 64})
    config.policy = ConfigDict({"kl": {"coefficient": 0.02}})
    config.execution = ConfigDict({"compute_dtype": "float32", "remat": "dots"})
    config.optimizer = ConfigDict({"learning_rate": 1e-4, "warmup": 0.05, "final": 1.0})
    config.epochs = 1.0
    config.loop = ConfigDict({"eval_every": 20, "checkpoint_every": 20})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    if variant.endswith("llama3_8b"):
        config.model = ConfigDict(
            {"source": "meta-llama/Llama-3.1-8B-Instruct", "dtype": "bfloat16"}
        )
        config.data.update({"prompt_length": 256, "batch_size": 128})
        config.rollout.update({"max_new_tokens": 512, "slots": 1024})
        config.execution = ConfigDict(
            {"compute_dtype": "bfloat16", "remat": "block", "attention": "chunked"}
        )
        config.microbatches = 8
        config.optimizer.learning_rate = 1e-5
        config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    if variant in ("tiny", "ppo_tiny"):
        config.model.source = "tiny"
        config.adapter = None  # a random base has nothing for an adapter to steer
        config.rewards = ({"kind": "length", "low": 1, "high": 12},)
        config.rollout.update({"max_new_tokens": 24, "slots": 64, "replies": 8})
        config.policy = ConfigDict({"truncated": "keep", "kl": {"coefficient": 0.0}})
        config.optimizer.learning_rate = 3e-3
        config.data.prompt_length = 288
        config.epochs = 1.0
    if variant == "ppo_llama3_8b":
        config.model.dtype = None
        config.adapter = None
        config.microbatches = 1
        config.optimizer.learning_rate = 1e-6
    if variant.startswith("ppo"):
        config.policy = ConfigDict(
            {
                "advantage": {"kind": "gae"},
                "kl": {"coefficient": 0.01, "where": "reward"},
                "epochs": 2,
                "minibatches": 2,
            }
        )
        config.rollout.replies = 4
    return config

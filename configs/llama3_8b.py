"""Llama-3.1-8B: fine-tuning on rows of 8,192 tokens, and the meta-curriculum.

The figures are the TPU compiler's and a roofline's (`hen plan`); no chip has run this yet.

    hen run --config=configs/llama3_8b.py:lora --workdir=runs/llama3-8b-lora

On `v5e:4x4` (16 chips): 11.5 of 16 GiB per chip, recompute factor 1.33; at best 2.03 s per step
of 131,072 tokens (4,033 tokens/s per chip, MFU 0.75), MFU 0.42 with nothing overlapped.

With `--config.execution.base_dtype=int8 --config.data.batch_size=1 --config.data.row_length=4096`
it fits a single v5e chip (`v5e:1x1`): 14.9 of 16 GiB, recompute factor 1.35.

    hen run --config=configs/llama3_8b.py:full --workdir=runs/llama3-8b-full

On `v5p:2x2x4` (16 chips): 35.7 of 95 GiB per chip, recompute factor 1.06; at best 0.97 s per
step of 131,072 tokens (8,437 tokens/s per chip, MFU 0.95), MFU 0.53 with nothing overlapped.

    hen run --config=configs/llama3_8b.py:emcl --workdir=runs/llama3-8b-emcl

On `v5e:4x4` (16 chips): 5.7 of 16 GiB per chip, exact meta-gradients of 4 tasks, 16 rows of 2,048
tokens in each of 2 inner steps and the query; at best 32 s per step, bound by memory traffic (MFU
0.39), 59 s with nothing overlapped.
"""

from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["lora", "full", "emcl"] = "lora") -> ConfigDict:
    """`lora`, `full` or `emcl`."""
    full, curriculum = variant == "full", variant == "emcl"
    config = ConfigDict()
    config.recipe = "emcl" if curriculum else "sft"
    config.seed = 0
    config.model = ConfigDict(
        {
            "source": "meta-llama/Llama-3.1-8B-Instruct",
            "dtype": None if full else "bfloat16",  # of what is frozen
            "trained_dtype": "float32",  # "bfloat16": rounded stochastically
        }
    )
    config.sources = (
        {"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},
        {"schema": "hed", "path": "shipped:hed/hed.zh.jsonl"},
    )
    config.adapter = None if full else ConfigDict({"rank": 16, "alpha": 32.0})
    config.optimizer = ConfigDict(
        {"learning_rate": 1e-5 if full else 2e-4, "warmup": 0.03, "final": 0.1}
    )
    config.loop = ConfigDict({"eval_every": 100, "checkpoint_every": 100})
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1, "slices": 1})
    if curriculum:
        _add_curriculum(config)
        return config
    config.data = ConfigDict({"row_length": 8192, "batch_size": 16})
    config.microbatches = 1
    config.epochs = 1.0
    config.logit_chunk = 2048 if full else 1024
    config.execution = ConfigDict(
        {
            "compute_dtype": "bfloat16",
            "remat": "dots" if full else "attention",
            "attention": "splash",
            "base_dtype": "stored",  # "int8" halves a frozen base
        }
    )
    return config


def _add_curriculum(config: ConfigDict) -> None:
    config.start = None  # the folder of an SFT run
    config.tasks = ("SER", "SRER", "SPER", "SRPER")
    config.steps = 200
    config.emcl = ConfigDict({"curriculum": "emcl_a", "mode": "mixflow", "parallel_tasks": False})
    config.episode = ConfigDict({"support_rows": 16, "query_rows": 16, "row_length": 2048})
    config.logit_chunk = 256
    # The gradient through the inner steps differentiates forward too, which no fused kernel does.
    config.execution = ConfigDict(
        {"compute_dtype": "bfloat16", "remat": "block", "attention": "chunked"}
    )

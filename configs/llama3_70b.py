"""Llama-3.1-70B: fine-tuning on rows of 8,192 tokens, and the meta-curriculum.

The figures are the TPU compiler's and a roofline's (`hen plan`); no chip has run this yet.

    hen run --config=configs/llama3_70b.py:full --workdir=runs/llama3-70b-full

On `v5p:4x4x4` (64 chips): 64.7 of 95 GiB per chip, recompute factor 1.22; at best 9.80 s per
step of 524,288 tokens (836 tokens/s per chip, MFU 0.82), MFU 0.47 with nothing overlapped.

    hen run --config=configs/llama3_70b.py:lora --workdir=runs/llama3-70b-lora

On `v5p:2x2x4` (16 chips): 49.1 of 95 GiB per chip, recompute factor 1.32; at best 7.35 s per
step of 131,072 tokens (1,114 tokens/s per chip, MFU 0.76), MFU 0.53 with nothing overlapped.

    hen run --config=configs/llama3_70b.py:emcl --workdir=runs/llama3-70b-emcl

On `v5p:2x2x4` (16 chips): 25.4 of 95 GiB per chip; at best 69 s per step, bound by products
(MFU 0.71), 154 s with nothing overlapped.
"""

import runpy
from pathlib import Path
from typing import Literal

from ml_collections import ConfigDict

LLAMA = runpy.run_path(str(Path(__file__).with_name("llama3_8b.py")))


def get_config(variant: Literal["full", "lora", "emcl"] = "full") -> ConfigDict:
    """`lora`, `full` or `emcl`; `full` has a row for each of 64 chips."""
    config = LLAMA["get_config"](variant)
    config.model.source = "meta-llama/Llama-3.1-70B-Instruct"
    config.optimizer.learning_rate = {"lora": 1e-4, "full": 5e-6, "emcl": 1e-4}[variant]
    if variant == "full":
        config.data.batch_size = 64
        config.execution.remat = "attention"
    return config

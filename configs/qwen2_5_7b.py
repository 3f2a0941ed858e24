"""Qwen2.5-7B: fine-tuning on rows of 8,192 tokens, and the meta-curriculum.

The figures are the TPU compiler's and a roofline's (`hen plan`); no chip has run this yet.

    hen run --config=configs/qwen2_5_7b.py:lora --workdir=runs/qwen2-5-7b-lora

On `v5e:4x4` (16 chips): 9.9 of 16 GiB per chip, recompute factor 1.33; at best 1.85 s per step
of 131,072 tokens (4,418 tokens/s per chip, MFU 0.75), MFU 0.42 with nothing overlapped.

    hen run --config=configs/qwen2_5_7b.py:full --workdir=runs/qwen2-5-7b-full

On `v5p:2x2x4` (16 chips): 34.9 of 95 GiB per chip, recompute factor 1.05; at best 0.89 s per
step of 131,072 tokens (9,202 tokens/s per chip, MFU 0.95), MFU 0.52 with nothing overlapped.

    hen run --config=configs/qwen2_5_7b.py:emcl --workdir=runs/qwen2-5-7b-emcl

On `v5e:4x4` (16 chips): 5.3 of 16 GiB per chip; at best 34 s per step, bound by memory traffic
(MFU 0.34), 59 s with nothing overlapped.
"""

import runpy
from pathlib import Path
from typing import Literal

from ml_collections import ConfigDict

LLAMA = runpy.run_path(str(Path(__file__).with_name("llama3_8b.py")))


def get_config(variant: Literal["lora", "full", "emcl"] = "lora") -> ConfigDict:
    """`lora`, `full` or `emcl`, as for Llama-3.1-8B."""
    config = LLAMA["get_config"](variant)
    config.model.source = "Qwen/Qwen2.5-7B-Instruct"
    return config

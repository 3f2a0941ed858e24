"""Phi-3-mini (4k): fine-tuning on rows of 4,096 tokens, and the meta-curriculum.

The figures are the TPU compiler's and a roofline's (`hen plan`); no chip has run this yet.

    hen run --config=configs/phi3_mini.py:lora --workdir=runs/phi3-mini-lora

On `v5e:4x4` (16 chips): 4.9 of 16 GiB per chip, recompute factor 1.38; at best 0.49 s per step
of 65,536 tokens (8,429 tokens/s per chip, MFU 0.72), MFU 0.34 with nothing overlapped.

    hen run --config=configs/phi3_mini.py:full --workdir=runs/phi3-mini-full

On `v5e:4x4` (16 chips): 9.1 of 16 GiB per chip, recompute factor 1.25; at best 0.63 s per step
of 65,536 tokens (6,504 tokens/s per chip, MFU 0.80), MFU 0.39 with nothing overlapped.

    hen run --config=configs/phi3_mini.py:emcl --workdir=runs/phi3-mini-emcl

On `v5e:4x4` (16 chips): 3.8 of 16 GiB per chip; at best 17 s per step, bound by memory traffic
(MFU 0.38), 31 s with nothing overlapped.
"""

import runpy
from pathlib import Path
from typing import Literal

from ml_collections import ConfigDict

LLAMA = runpy.run_path(str(Path(__file__).with_name("llama3_8b.py")))


def get_config(variant: Literal["lora", "full", "emcl"] = "lora") -> ConfigDict:
    """`lora`, `full` or `emcl`; the model was trained for 4,096 positions."""
    config = LLAMA["get_config"](variant)
    config.model.source = "microsoft/Phi-3-mini-4k-instruct"
    if variant != "emcl":
        config.data.row_length = 4096
        config.execution.remat = "attention"  # "dots" needs 17 GiB of a v5e's 16
    return config

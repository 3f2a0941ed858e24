"""Phi-3-mini (4k): fine-tuning on rows of 4,096 tokens, and the meta-curriculum.

The figures are the TPU compiler's and a roofline's (`hen plan`); no chip has run this yet.

    hen run --config=configs/phi3_mini.py:lora --workdir=runs/phi3-mini-lora

Not planned yet: `hen plan --config=configs/phi3_mini.py:lora --topology=v5e:4x4`.

    hen run --config=configs/phi3_mini.py:full --workdir=runs/phi3-mini-full

Not planned yet: `hen plan --config=configs/phi3_mini.py:full --topology=v5e:4x4`.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

LLAMA = runpy.run_path(str(Path(__file__).with_name("llama3_8b.py")))


def get_config(variant: str = "lora") -> ConfigDict:
    """`lora`, `full` or `emcl`; the model was trained for 4,096 positions."""
    config = LLAMA["get_config"](variant)
    config.model.source = "microsoft/Phi-3-mini-4k-instruct"
    if variant != "emcl":
        config.data.row_length = 4096
        # With its window attention is cheap, and what "attention" keeps saves too little.
        config.execution.remat = "dots" if variant == "lora" else "attention"
    return config

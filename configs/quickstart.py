"""What `make quickstart` runs: LoRA on the shipped English dialogues, replies, both exports.

    hen run --config=configs/quickstart.py --workdir=runs/quickstart

The same with a random model, in under a minute, to see that everything works:

    hen run --config=configs/quickstart.py:tiny --workdir=runs/quickstart-tiny
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict


def get_config(variant: str = "smollm2") -> ConfigDict:
    """`smollm2` or `tiny`."""
    config = _sft().get_config(variant)
    config.recipe = "quickstart"
    return config


def _sft():
    spec = importlib.util.spec_from_file_location("sft", Path(__file__).with_name("sft.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

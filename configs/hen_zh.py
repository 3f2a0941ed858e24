"""The whole of HEN in Chinese: high-context empathy on a base of the Qwen family.

    hen run --config=hen_zh:tiny --workdir=runs/hen-zh-tiny

A random model on the shipped Chinese dialogues, to see that everything works.

    hen run --config=hen_zh --workdir=runs/hen-zh

Qwen2.5-0.5B-Instruct from the hub, LoRA, the shipped Chinese dialogues. Another base by path or hub
id, and data of your own:

    hen run --config=hen_zh --config.model.source=models/qwen --workdir=runs/hen-zh
    hen run --config=hen_zh --workdir=runs/mine --config.sft.sources[0].path=mine.jsonl

The stages are those of `pipeline` without experts, as the shipped contexts are English. No Qwen
model has been through all of it yet.
"""

import runpy
from pathlib import Path
from typing import Literal

from ml_collections import ConfigDict

PIPELINE = runpy.run_path(str(Path(__file__).with_name("pipeline.py")))


def get_config(variant: Literal["qwen", "tiny"] = "qwen") -> ConfigDict:
    """`qwen` or `tiny`."""
    config = PIPELINE["get_config"]("tiny" if variant == "tiny" else "small")
    if variant == "qwen":
        config.model = ConfigDict({"source": "Qwen/Qwen2.5-0.5B-Instruct", "dtype": "bfloat16"})
    stages = [step for step in config.stages if step["name"] != "experts"]
    config.stages = tuple({**step, "fields": _in_chinese(step["fields"])} for step in stages)
    config.suites.data = ("shipped:hed/hed.zh.jsonl",)
    config.exports = ("policy/hf",) if variant == "tiny" else ("policy/hf", "policy/peft")
    return config


def _in_chinese(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The Chinese dialogues, and replies of 8 to 80 characters."""
    there = [one.replace("hed.en.jsonl", "hed.zh.jsonl") for one in fields]
    return tuple(one.replace("'low': 20, 'high': 160", "'low': 8, 'high': 80") for one in there)

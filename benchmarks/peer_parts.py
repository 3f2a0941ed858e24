"""What all sides that run in TRL have in common; imports nothing of hen_jax."""

from typing import Any

import peft
from transformers import AutoTokenizer

ALONE = {
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
"""Arguments of every trainer: a CPU, a log line an update, and nothing beside the training."""


def adapter(task: dict, kind: str = "CAUSAL_LM", **more: Any) -> peft.LoraConfig:
    """LoRA on all linear layers, of the task's rank."""
    return peft.LoraConfig(
        r=task["rank"],
        lora_alpha=task["alpha"],
        target_modules="all-linear",
        task_type=kind,
        **more,
    )


def tokenizer(task: dict) -> Any:
    """The model's, which pads with its end where it has no token for that."""
    found = AutoTokenizer.from_pretrained(task["model"])
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found

"""GRPO with TRL's GRPOTrainer and PEFT: the other side of `grpo_vs_trl.py`.

Runs in an interpreter with torch, transformers, peft and trl; imports nothing of hen_jax. What the
task does not set keeps TRL's default.
"""

import os
import statistics
import tempfile
import time
import warnings
from typing import Any, ClassVar

import duel
import peer_parts
import torch
import trl
from datasets import Dataset
from transformers import TrainerCallback


class OnTokens(trl.GRPOTrainer):
    """The trainer, on token ids as they are; it tells how long each generation took."""

    ids: ClassVar[list[list[int]]] = []
    drawing: ClassVar[list[float]] = []

    def _tokenize_prompts(self, prompts: list) -> tuple:
        return [self.ids[int(one)] for one in prompts], None, {}

    def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        found = super()._generate_single_turn(*given, **named)
        self.drawing.append(time.perf_counter() - began)
        return found


class Clock(TrainerCallback):
    """Seconds of every step, its generation included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Before the generation."""
        self.began, self.before = time.perf_counter(), duel.cpu_seconds()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After the update."""
        self.seconds.append(time.perf_counter() - self.began)
        self.cpu.append(duel.cpu_seconds() - self.before)


def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(token % 2 == 0 for token in one) / max(len(one), 1) for one in completion_ids]


def theirs(task: dict) -> dict:
    """Steps of rollout and update; the first is left out."""
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    OnTokens.ids, clock = task["prompt_ids"], Clock()
    with tempfile.TemporaryDirectory() as workdir:
        run = trainer(task, workdir)
        run.add_callback(clock)
        run.train()
    tokens = task["replies"] * len(task["prompt_ids"]) * task["new"]
    return {
        "seconds": clock.seconds[1:],
        "cpu_seconds": clock.cpu[1:],
        "amount": tokens,
        "rollout_s": statistics.median(OnTokens.drawing[1:]),
    }


def trainer(task: dict, workdir: str) -> OnTokens:
    rows = task["replies"] * len(task["prompt_ids"])
    tokenizer = peer_parts.tokenizer(task)
    arguments = trl.GRPOConfig(
        output_dir=workdir,
        per_device_train_batch_size=rows // task["accumulate"],
        gradient_accumulation_steps=task["accumulate"],
        num_generations=task["replies"],
        max_completion_length=task["new"],
        max_steps=1 + task["repeats"],
        loss_type="grpo",
        beta=0.0,
        temperature=1.0,
        top_k=0,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        bf16=False,
        gradient_checkpointing=False,
        use_transformers_continuous_batching=task["continuous"],
        generation_kwargs={"suppress_tokens": [tokenizer.eos_token_id]},
        model_init_kwargs={"dtype": "float32"},
        **peer_parts.ALONE,
    )
    names = [str(number) for number in range(len(task["prompt_ids"]))]
    return OnTokens(
        task["model"],
        reward_funcs=even,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": names}),
        processing_class=tokenizer,
        peft_config=peer_parts.adapter({"rank": 16, "alpha": 32}),
    )


if __name__ == "__main__":
    duel.main(lambda: "this is one side of grpo_vs_trl.py", theirs)

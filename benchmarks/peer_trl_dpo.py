"""DPO with TRL's DPOTrainer and PEFT: the other side of `dpo_vs_trl.py`.

Runs in an interpreter with torch, transformers, peft and trl; imports nothing of hen_jax. What the
task does not set keeps TRL's default. Seconds are those of `DPOTrainer.train`, and of the
reference's log-probabilities where they are computed beforehand.
"""

import os
import tempfile
import time
import warnings
from typing import Any

import duel
import peer_parts
import torch
import trl
from datasets import Dataset


class OnTokens(trl.DPOTrainer):
    """The trainer, on token ids as they are; it tells how long the reference took beforehand."""

    beforehand: tuple[float, float] = (0.0, 0.0)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, *given: Any, **named: Any) -> Dataset:
        start, cpu = time.perf_counter(), duel.cpu_seconds()
        found = super()._precompute_ref_logps(*given, **named)
        self.beforehand = (time.perf_counter() - start, duel.cpu_seconds() - cpu)
        return found


def theirs(task: dict) -> dict:
    """One epoch."""
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as workdir:
        run = trainer(task, workdir)
        found = duel.timed(run.train)
    for name, before in zip(("seconds", "cpu_seconds"), run.beforehand, strict=True):
        found[name] = [found[name][0] + before]
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    return found | {"amount": len(task["pairs"]), "first": losses[0], "loss": losses[-1]}


def trainer(task: dict, workdir: str) -> OnTokens:
    arguments = trl.DPOConfig(
        output_dir=workdir,
        per_device_train_batch_size=task["at_once"],
        gradient_accumulation_steps=task["pairs_per_update"] // task["at_once"],
        num_train_epochs=1,
        learning_rate=task["learning_rate"],
        lr_scheduler_type="constant",
        beta=task["beta"],
        bf16=False,
        gradient_checkpointing=task["checkpointing"],
        precompute_ref_log_probs=task["precompute"],
        max_length=None,
        model_init_kwargs={"dtype": "float32"},
        **peer_parts.ALONE,
    )
    return OnTokens(
        task["model"],
        args=arguments,
        train_dataset=Dataset.from_list(task["pairs"]),
        processing_class=peer_parts.tokenizer(task),
        peft_config=peer_parts.adapter(task),
    )


if __name__ == "__main__":
    duel.main(lambda: "this is one side of dpo_vs_trl.py", theirs)

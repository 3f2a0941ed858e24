"""Reward models with TRL's RewardTrainer and PEFT: the other side of `reward_vs_trl.py`.

Runs in an interpreter with torch, transformers, peft and trl; imports nothing of hen_jax. What the
task does not set keeps TRL's default. Seconds are those of `RewardTrainer.train`, or of the scores.
"""

import os
import tempfile
import warnings
from typing import Any

import duel
import peer_parts
import torch
import trl
from datasets import Dataset
from transformers import AutoModelForSequenceClassification


class OnTokens(trl.RewardTrainer):
    """The trainer, on token ids as they are."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def theirs(task: dict) -> dict:
    """An epoch and the held-out pairs, or scores alone."""
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    return _scored(task) if task["work"] == "score" else _trained(task)


def _trained(task: dict) -> dict:
    with tempfile.TemporaryDirectory() as workdir:
        run = _trainer(task, workdir)
        found = duel.timed(run.train)
    found["peak_bytes"] = duel.peak_bytes()  # before the held-out pairs
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    pad = run.processing_class.pad_token_id
    chosen, rejected = (
        _scores(run.model, [one[side] for one in task["held_out"]], 8, pad)
        for side in ("chosen_ids", "rejected_ids")
    )
    return found | {
        "amount": task["epochs"] * len(task["pairs"]),
        "loss": sum(losses[-8:]) / len(losses[-8:]),
        "right": (0.5 * (1 + torch.sign(chosen - rejected))).tolist(),
    }


def _trainer(task: dict, workdir: str) -> OnTokens:
    arguments = trl.RewardConfig(
        output_dir=workdir,
        per_device_train_batch_size=task["at_once"],
        gradient_accumulation_steps=task["pairs_per_update"] // task["at_once"],
        num_train_epochs=task["epochs"],
        learning_rate=task["learning_rate"],
        lr_scheduler_type="constant",
        center_rewards_coefficient=None,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        model_init_kwargs={"dtype": "float32"},
        **peer_parts.ALONE,
    )
    return OnTokens(
        task["model"],
        args=arguments,
        train_dataset=Dataset.from_list(task["pairs"]),
        processing_class=peer_parts.tokenizer(task),
        peft_config=peer_parts.adapter(task, "SEQ_CLS", modules_to_save=["score"]),
    )


def _scored(task: dict) -> dict:
    pad = peer_parts.tokenizer(task).pad_token_id
    model = AutoModelForSequenceClassification.from_pretrained(
        task["model"], num_labels=1, dtype=torch.float32, pad_token_id=pad
    )
    documents = [one[side] for one in task["held_out"] for side in ("chosen_ids", "rejected_ids")]
    _scores(model, documents[:8], task["at_once"], pad)
    found = duel.timed(lambda: _scores(model, documents, task["at_once"], pad), task["repeats"])
    return found | {"amount": sum(map(len, documents)), "first_s": found["seconds"][0]}


@torch.no_grad()
def _scores(model: Any, documents: list[list[int]], size: int, pad: int) -> torch.Tensor:
    """Of each document, in batches of documents of about the same length."""
    model.eval()
    order = sorted(range(len(documents)), key=lambda at: len(documents[at]))
    found = torch.zeros(len(documents))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        longest = max(len(documents[at]) for at in places)
        ids = torch.full((len(places), longest), pad)
        seen = torch.zeros_like(ids)
        for row, at in enumerate(places):
            own = torch.tensor(documents[at])
            ids[row, : len(own)], seen[row, : len(own)] = own, 1
        found[places] = model(input_ids=ids, attention_mask=seen).logits[:, 0].float()
    return found


if __name__ == "__main__":
    duel.main(lambda: "this is one side of reward_vs_trl.py", theirs)

"""LoRA training with TRL's SFTTrainer and PEFT: the other side of `sft_vs_trl.py` and
`experts_vs_trl.py`.

Runs in an interpreter with torch, transformers, peft and trl; imports nothing of hen_jax. What the
task does not set keeps TRL's default. Seconds are those of `SFTTrainer.train`.
"""

import os
import tempfile
import warnings

import duel
import peer_parts
import torch
import trl
from datasets import Dataset


def theirs(task: dict) -> dict:
    """One epoch; `leak` is how far documents of a packed row see each other."""
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as workdir:
        run = trainer(task, workdir)
        leak = contamination(run, task["examples"]) if task["packing"] else 0.0
        counts = counted(run)
        found = duel.timed(run.train)
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 4) :]
    # The loader makes batches ahead of the updates: those after the last one do not count.
    trained = sum(counts[: len(losses)])
    return found | {"amount": trained, "loss": sum(last) / len(last), "leak": leak}


def in_sequence(task: dict) -> dict:
    """One epoch for each name of `examples`, an adapter on a base of its own, one after another."""
    runs = [theirs(task | {"examples": own}) for own in task["examples"].values()]
    each = {name: [sum(run[name]) for run in runs] for name in ("seconds", "cpu_seconds")}
    return {
        **{name: sum(own) for name, own in each.items()},
        "each_seconds": each["seconds"],
        "amount": sum(run["amount"] for run in runs),
        "loss": sum(run["loss"] for run in runs) / len(runs),
        "leak": max(run["leak"] for run in runs),
    }


def trainer(task: dict, workdir: str) -> trl.SFTTrainer:
    mixed = task["precision"] == "bfloat16" and task["weights"] == "float32"
    arguments = trl.SFTConfig(
        output_dir=workdir,
        per_device_train_batch_size=task["batch_size"],
        num_train_epochs=1,
        max_steps=task["max_updates"] or -1,
        learning_rate=task["learning_rate"],
        bf16=mixed,
        gradient_checkpointing=task["checkpointing"],
        packing=bool(task["packing"]),
        max_length=task["row_length"],
        model_init_kwargs={"dtype": task["weights"]},
        **peer_parts.ALONE,
    )
    data = Dataset.from_list(task["examples"])
    return trl.SFTTrainer(
        task["model"], arguments, train_dataset=data, peft_config=peer_parts.adapter(task)
    )


def contamination(run: trl.SFTTrainer, examples: list[dict]) -> float:
    """How far the loss of a packed batch lies from that of its documents alone, in nats a token.

    Above rounding, documents of one row see each other.
    """
    packed = next(iter(run.get_train_dataloader()))
    starts = (packed["position_ids"][0] == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], packed["input_ids"].shape[1]]
    rows = packed["input_ids"][0].tolist()
    known = {tuple(example["input_ids"]): example for example in examples}
    documents = [known[tuple(rows[a:b])] for a, b in zip(starts, ends, strict=True)]

    def log_probability(batch: dict) -> torch.Tensor:
        return run.model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum()

    run.model.eval()
    with torch.no_grad():
        alone = sum(
            log_probability({name: torch.tensor([one[name]]) for name in ("input_ids", "labels")})
            for one in documents
        )
        apart = (log_probability(packed) - alone).abs() / (packed["labels"] >= 0).sum()
    run.model.train()
    return float(apart)


def counted(run: trl.SFTTrainer) -> list[int]:
    """A list that grows, as batches are made, by the trained tokens of each."""
    counts: list[int] = []
    collate = run.data_collator

    def counting(rows: list[dict]) -> dict:
        batch = collate(rows)
        counts.append(int((batch["labels"][:, 1:] >= 0).sum()))
        return batch

    run.data_collator = counting
    return counts


if __name__ == "__main__":
    duel.main(lambda: "run sft_vs_trl.py or experts_vs_trl.py", theirs, in_sequence)

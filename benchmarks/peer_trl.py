"""LoRA training with TRL's SFTTrainer and PEFT: the other side of `sft_vs_trl.py`.

    python peer_trl.py TASK.json RESULT.json

Runs in an interpreter with torch, transformers, peft and trl; imports nothing of hen_jax. What the
task does not set keeps TRL's default. Seconds are those of `SFTTrainer.train`.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import peft
import torch
import transformers
import trl
from datasets import Dataset
from measure import PROBE, best_rate, cpu_seconds, peak_bytes


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
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    adapter = peft.LoraConfig(
        r=task["rank"],
        lora_alpha=task["alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    data = Dataset.from_list(task["examples"])
    return trl.SFTTrainer(task["model"], arguments, train_dataset=data, peft_config=adapter)


def apart(documents: list[dict]) -> Iterator[dict]:
    """Each document as a batch of its own."""
    for document in documents:
        yield {name: torch.tensor([document[name]]) for name in ("input_ids", "labels")}


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
    with torch.no_grad():
        together = run.model.eval()(**packed, use_cache=False, fused_lm_head=True).log_probs.sum()
        alone = sum(
            run.model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum()
            for batch in apart(documents)
        )
    run.model.train()
    return float((together - alone).abs() / (packed["labels"] >= 0).sum())


def counted(run: trl.SFTTrainer) -> list[tuple[int, int]]:
    """A list that grows, as batches are made, by the tokens and the trained tokens of each."""
    counts: list[tuple[int, int]] = []
    collate = run.data_collator

    def counting(rows: list[dict]) -> dict:
        batch = collate(rows)
        trained = int((batch["labels"][:, 1:] >= 0).sum())
        documents = sum(len(row.get("seq_lengths", [0])) for row in rows)
        tokens = sum(len(row["input_ids"]) for row in rows) - documents  # the last predicts nothing
        counts.append((tokens, trained))
        return batch

    run.data_collator = counting
    return counts


def matmul_rate() -> float:
    a, b, c = PROBE
    x, y = torch.rand(a, b), torch.rand(b, c)
    return best_rate(lambda: x @ y)


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as workdir:
        run = trainer(task, workdir)
        leak = contamination(run, task["examples"]) if task["packing"] else 0.0
        counts = counted(run)
        start, cpu = time.perf_counter(), cpu_seconds()
        run.train()
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    # The loader makes batches ahead of the updates: those after the last one do not count.
    tokens, trained = (sum(some) for some in zip(*counts[: len(losses)], strict=True))
    result = {
        "tokens": tokens,
        "trained": trained,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "compile_s": 0.0,
        "peak_bytes": peak_bytes(),
        "losses": losses,
        "leak": leak,
        "matmul_rate": matmul_rate(),
        "versions": {
            module.__name__: str(module.__version__) for module in (torch, transformers, peft, trl)
        },
    }
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()

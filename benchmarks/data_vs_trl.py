"""Preparing conversations for training: hen_jax against TRL, on the same file and machine.

Both read JSON lines of `messages`, render them with the model's template (ChatML or SmolLM2's),
mark what trains (the assistant's turns alone), and pack into rows of 1,024. TRL refuses to mask by
a template without generation markers, so its copy of the template is given them here. TRL runs in
an interpreter of its own, given by `--peer-python`, without its caches; hen_jax runs in this one.
Each is timed several times in turns, from rows in memory to packed rows; importing and reading the
file do not count. TRL cuts the end off a long conversation, hen_jax its oldest turns, which it does
not tokenise where it is plain that they will not fit; TRL writes packed lists to Arrow, hen_jax all
five arrays of every batch. Each is one process; both libraries' tokenizer is the same Rust code,
which hen_jax gives thousands of texts at a time and so keeps on every core.

    python benchmarks/data_vs_trl.py MODEL_FOLDER CONVERSATIONS.jsonl --peer-python PYTHON

Also reports how full the rows are. `loader_rate.py` says whether a consumer ever waits for them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """
import json, sys, time
from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

model_folder, rows, row_length, cores = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=False)
turn = "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
assert turn in tokenizer.chat_template, tokenizer.chat_template
tokenizer.chat_template = tokenizer.chat_template.replace(turn, (
    "{% if message['role'] == 'assistant' %}{{'<|im_start|>assistant\\n'}}{% generation %}"
    "{{message['content'] + '<|im_end|>'}}{% endgeneration %}{{'\\n'}}{% else %}" + turn
    + "{% endif %}"))
with open(rows, encoding="utf-8") as file:
    dataset = Dataset.from_list([json.loads(line) for line in file])
config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                     num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
seconds = []
prepare = SFTTrainer._prepare_dataset

def timed(self, *args, **kwargs):
    start = time.perf_counter()
    prepared = prepare(self, *args, **kwargs)
    seconds.append(time.perf_counter() - start)
    return prepared

SFTTrainer._prepare_dataset = timed
import datasets
datasets.disable_caching()
arguments = SFTConfig(output_dir=rows + ".trl", max_length=row_length, packing=True,
                      assistant_only_loss=True, use_cpu=True, bf16=False, report_to=[],
                      dataset_num_proc=cores if cores > 1 else None)
trainer = SFTTrainer(LlamaForCausalLM(config), arguments, train_dataset=dataset,
                     processing_class=tokenizer)
packed = trainer.train_dataset
print("RESULT " + json.dumps({
    "seconds": seconds[0],
    "rows": len(packed),
    "tokens": sum(map(len, packed["input_ids"])),
    "columns": packed.column_names,
}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a folder with a tokenizer and its template")
    parser.add_argument("conversations", type=Path, help="messages rows (.jsonl, .jsonl.gz)")
    parser.add_argument("--peer-python", help="an interpreter with trl installed")
    parser.add_argument("--peer-cores", type=int, default=1, help="TRL's dataset_num_proc")
    parser.add_argument("--row-length", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    documents = read(arguments.conversations)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(documents, rows)
        for _ in range(arguments.repeats):
            ours.append(run_ours(arguments.model, documents, arguments.row_length))
            if arguments.peer_python:
                theirs.append(run_theirs(arguments, rows))
    report = {
        "documents": len(documents),
        "hen_jax": ours[0] | {"seconds": [round(one["seconds"], 2) for one in ours]},
    }
    if theirs:
        report["trl"] = theirs[0] | {"seconds": [round(one["seconds"], 2) for one in theirs]}
        medians = [statistics.median(one["seconds"] for one in runs) for runs in (theirs, ours)]
        report["times_faster"] = round(medians[0] / medians[1], 2)
    print(json.dumps(report, indent=2))


def read(path: Path):
    from hen_jax.data.schemas import check_records

    parsed = check_records(path, "messages")
    print(
        f"{path}: {len(parsed.records)} conversations, {len(parsed.problems)} bad", file=sys.stderr
    )
    return parsed.records


def write_rows(documents, path: Path):
    """The rows that TRL reads: only what hen_jax renders too."""
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            messages = [
                {"role": message.role, "content": message.content}
                for message in document.conversation.messages
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def run_ours(model: Path, documents, row_length: int) -> dict:
    """Rendered, packed, and every batch of one epoch made."""
    from hen_jax.data.examples import encode
    from hen_jax.data.packing import efficiency, pack
    from hen_jax.data.pipeline import PipelineConfig, eval_batches
    from hen_jax.text.detect import open_chat_tokenizer

    config = PipelineConfig(row_length=row_length)
    tokenizer = open_chat_tokenizer(model)
    start = time.perf_counter()
    encoded = encode(documents, tokenizer, max_length=row_length)
    batches = list(eval_batches(encoded.examples, config))
    seconds = time.perf_counter() - start
    rows = pack([example.length for example in encoded.examples], row_length, config.packing)
    return {
        "seconds": seconds,
        "rows": len(rows),
        "filled": round(efficiency(encoded.examples, rows, row_length), 4),
        "tokens": sum(int((batch.segments != 0).sum()) for batch in batches),
        "trained": sum(int(batch.mask.sum()) for batch in batches),
        "cut_or_left_out": [len(encoded.truncated), len(encoded.dropped)],
    }


def run_theirs(arguments, rows: Path) -> dict:
    command = [arguments.peer_python, "-c", PEER, arguments.model, rows]
    sizes = [str(arguments.row_length), str(arguments.peer_cores)]
    found = subprocess.run(
        [*map(str, command), *sizes], capture_output=True, text=True, check=False
    )
    lines = [line for line in found.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"TRL failed:\n{found.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


if __name__ == "__main__":
    main()

"""Preparing conversations for training: hen_jax against TRL, on the same file and machine.

    python benchmarks/data_vs_trl.py MODEL_FOLDER CONVERSATIONS.jsonl

Both read JSON lines of `messages`, render them with the model's template (ChatML or SmolLM2's),
mark what trains (the assistant's turns alone), and pack into rows of 1,024. TRL refuses to mask by
a template without generation markers, so its copy of the template is given them here; its caches
are off. Each is timed from rows in memory to packed rows; importing and reading the file do not
count. TRL cuts the end off a long conversation, hen_jax its oldest turns, which it does not
tokenise where it is plain that they will not fit; TRL writes packed lists to Arrow, hen_jax all
five arrays of every batch. Each is one process; both libraries' tokenizer is the same Rust code,
which hen_jax gives thousands of texts at a time and so keeps on every core. Also told: the rows,
and how full they are.
"""

import json
import tempfile
import time
from pathlib import Path

import duel

TURN = "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
MARKED = (
    "{% if message['role'] == 'assistant' %}{{'<|im_start|>assistant\\n'}}{% generation %}"
    "{{message['content'] + '<|im_end|>'}}{% endgeneration %}{{'\\n'}}{% else %}" + TURN
    + "{% endif %}"
)  # fmt: skip


def ours(task: dict) -> dict:
    """Rendered, packed, and every batch of one epoch made."""
    from hen_jax.data.examples import encode
    from hen_jax.data.pipeline import PipelineConfig, eval_batches
    from hen_jax.data.schemas import read_records
    from hen_jax.text.detect import open_chat_tokenizer

    documents = read_records(Path(task["rows"]), "messages")
    config = PipelineConfig(row_length=task["row_length"])
    tokenizer = open_chat_tokenizer(Path(task["model"]))
    batches = []

    def prepare() -> None:
        encoded = encode(documents, tokenizer, max_length=config.row_length)
        batches.extend(eval_batches(encoded.examples, config))

    found = duel.timed(prepare)
    held = sum(int((batch.segments != 0).sum()) for batch in batches)
    rows = sum(int((batch.segments != 0).any(axis=1).sum()) for batch in batches)
    return found | {"rows": rows, "filled": held / (rows * config.row_length)}


def theirs(task: dict) -> dict:
    """What `SFTTrainer` does with its data set as it is built."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["model"], trust_remote_code=False)
    if TURN not in tokenizer.chat_template:
        raise SystemExit(f"cannot mark the turns of this template: {tokenizer.chat_template}")
    tokenizer.chat_template = tokenizer.chat_template.replace(TURN, MARKED)
    lines = Path(task["rows"]).read_text(encoding="utf-8").splitlines()
    dataset = datasets.Dataset.from_list([json.loads(line) for line in lines])
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)
    seconds = []
    prepare = SFTTrainer._prepare_dataset

    def timed(self, *args, **kwargs):
        start = time.perf_counter()
        prepared = prepare(self, *args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return prepared

    SFTTrainer._prepare_dataset = timed
    cores = task["peer_cores"]
    arguments = SFTConfig(
        output_dir=task["rows"] + ".trl", max_length=task["row_length"], packing=True,
        assistant_only_loss=True, use_cpu=True, bf16=False, report_to=[],
        dataset_num_proc=cores if cores > 1 else None,
    )  # fmt: skip
    trainer = SFTTrainer(
        transformers.LlamaForCausalLM(config),
        arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    packed = trainer.train_dataset
    held = sum(map(len, packed["input_ids"]))
    filled = held / (len(packed) * task["row_length"])
    return {"seconds": seconds[0], "rows": len(packed), "filled": filled}


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("model", type=Path, help="a folder with a tokenizer and its template")
    parser.add_argument("conversations", type=Path, help="messages rows (.jsonl, .jsonl.gz)")
    parser.add_argument("--peer-cores", type=int, default=1, help="TRL's dataset_num_proc")
    parser.add_argument("--row-length", type=int, default=1024)
    options = parser.parse_args()
    from hen_jax.data.schemas import check_records

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for document in check_records(options.conversations, "messages").records:
                turns = [
                    {"role": one.role, "content": one.content}
                    for one in document.conversation.messages
                ]
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
        task = {"model": str(options.model), "rows": str(rows), "row_length": options.row_length}
        task["peer_cores"] = options.peer_cores
        sides = {
            "ours": duel.Side("ours", task),
            "theirs": duel.Side("theirs", task, options.peer_python),
        }
        duel.report(duel.meet(sides, options.rounds), "theirs", options.out, ("rows", "filled"))


if __name__ == "__main__":
    duel.main(compare, ours, theirs)

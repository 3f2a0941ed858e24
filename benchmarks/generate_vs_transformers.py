"""Tokens per second of greedy generation, ours against transformers'.

    python benchmarks/generate_vs_transformers.py --model models/smollm2-135m --batch 1 8 32

Both continue the same ragged prompts by the same number of tokens in float32, stop tokens off.
Seconds are of whole calls, prefill included; compilation (ours) and a warm-up call (both) are left
out. `limit` is what reading all weights once per step allows at the bandwidth measured meanwhile.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duel

TEXTS = (
    "The rain in Spain falls mainly on the plain, and then",
    "My mother called last night. She did not say much, but",
    "Three things to do before winter:",
    "He looked at the empty chair and",
    "A short recipe for a soup that needs no more than one pot:",
    "When the exam results came out, my roommate",
    "On the first day of spring the old gardener",
    "It is not that I mind working late; it is that",
)


def ours(task: dict) -> dict:
    """`hen_jax.sampling.generate`, compiled for these prompts."""
    import jax

    from hen_jax.core.trees import count
    from hen_jax.io import hf
    from hen_jax.models.decoder import abstract, merge, split
    from hen_jax.sampling.generate import Generating, generate, lay_out, pad_prompts
    from hen_jax.sampling.logits import Sampling

    folder = Path(task["model"])
    config = hf.read_config(folder)
    params = jax.tree.map(jax.numpy.asarray, hf.read_params(folder, config, "float32"))
    graphdef = split(abstract(config)).graphdef
    weights = jax.jit(lambda tree: lay_out(merge(graphdef, tree)))(params)
    settings = Generating(task["new"], stop=(), sampling=Sampling(temperature=0.0))
    inputs = weights, pad_prompts(task["prompts"]), jax.random.key(0)
    began = time.perf_counter()
    compiled = jax.jit(generate, static_argnames="settings").lower(*inputs, settings).compile()
    compile_s = time.perf_counter() - began
    tokens = jax.block_until_ready(compiled(*inputs)).tokens.tolist()
    measured = duel.timed(lambda: jax.block_until_ready(compiled(*inputs)), task["repeats"])
    measured["peak_bytes"] = duel.peak_bytes()
    limit = len(tokens) * bandwidth() / (4 * count(params))
    return measured | {"tokens": tokens, "compile_s": compile_s, "limit": limit}


def theirs(task: dict) -> dict:
    """`transformers`' own `generate`."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=torch.float32, trust_remote_code=False
    ).eval()
    peer.generation_config.eos_token_id = None
    peer.generation_config.pad_token_id = 0
    width = max(map(len, task["prompts"]))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in task["prompts"]])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in task["prompts"]])

    @torch.inference_mode()
    def generate() -> torch.Tensor:
        return peer.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=task["new"], do_sample=False
        )

    tokens = generate()[:, width:].tolist()
    return duel.timed(generate, task["repeats"]) | {"tokens": tokens}


def bandwidth(rounds: int = 7) -> float:
    """Bytes per second of reading 1 GiB with every core at once; the best round."""
    import numpy as np

    cores = os.cpu_count() or 1
    parts = np.array_split(np.ones(2**28, np.float32), cores)
    with ThreadPoolExecutor(cores) as pool:
        found = duel.timed(lambda: list(pool.map(lambda part: part @ part, parts)), rounds)
    return 2**30 / min(found["seconds"])


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2, help="timed calls of a process")
    options = parser.parse_args()
    from hen_jax.text.tokenizer import load_tokenizer

    encode = load_tokenizer(options.model).encode
    for batch in options.batch:
        prompts = [encode(TEXTS[row % len(TEXTS)]) for row in range(batch)]
        task = {"model": str(options.model), "prompts": prompts, "new": options.new_tokens}
        task["repeats"] = options.repeats
        sides = {
            "ours": duel.Side("ours", task),
            "theirs": duel.Side("theirs", task, options.peer_python),
        }
        runs = duel.meet(sides, options.rounds)
        for run in (run for some in runs.values() for run in some):
            run["amount"] = batch * options.new_tokens
            run["per_second"] = duel.speeds([run])[0]
        rows = zip(*(some[0]["tokens"] for some in runs.values()), strict=True)
        same = sum(a == b for pair in rows for a, b in zip(*pair, strict=True))
        equal = same / (batch * options.new_tokens)
        print(f"\n{batch} rows, {options.new_tokens} new tokens, {equal:.1%} of them equal")
        out = options.out.with_stem(f"{options.out.stem}-{batch}")
        duel.report(runs, "theirs", out, show=("per_second", "limit", "compile_s"))


if __name__ == "__main__":
    duel.main(compare, ours, theirs)

"""Tokens per second of greedy generation, ours against transformers', in one run on one machine.

    python benchmarks/generate_vs_transformers.py --model DIR --out generate.json

Both continue the same ragged prompts by the same number of tokens in float32, stop tokens off, in
alternating rounds: ours in this interpreter, theirs in `--peer-python` (torch, transformers).
Seconds are of whole calls, prefill included, compilation (ours) and a warm-up call (both) left out.
The limit is what reading all weights once per step allows at the bandwidth measured in this run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def serve_peer(model: str) -> None:
    """Runs in the peer's interpreter: a line of prompts in, a line of seconds and tokens out."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, trust_remote_code=False
    ).eval()
    peer.generation_config.eos_token_id = None
    peer.generation_config.pad_token_id = 0
    versions = {"transformers": transformers.__version__, "torch": str(torch.__version__)}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        width = max(map(len, task["prompts"]))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in task["prompts"]])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in task["prompts"]])
        start = time.perf_counter()
        with torch.inference_mode():
            out = peer.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=task["new"], do_sample=False
            )
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "tokens": out[:, width:].tolist()}), flush=True)


class Peer:
    """The other interpreter, which keeps its model loaded between rounds."""

    def __init__(self, python: str, model: Path):
        command = [python, __file__, "--serve-peer", str(model)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.versions = self._read()

    def generate(self, prompts: list[list[int]], new: int) -> dict:
        """Seconds and tokens of one call there."""
        self.process.stdin.write(json.dumps({"prompts": prompts, "new": new}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Lets it end by itself, at the end of its input."""
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with exit code {self.process.wait()}")
        return json.loads(line)


def bandwidth(rounds: int = 7) -> float:
    """Bytes per second of reading 1 GiB with every core at once; the best round."""
    import numpy as np

    cores = os.cpu_count() or 1
    parts = np.array_split(np.ones(2**28, np.float32), cores)
    best = float("inf")
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(lambda part: part @ part, parts))
            best = min(best, time.perf_counter() - start)
    return 2**30 / best


def open_ours(folder: Path):
    import jax

    from hen_jax.core.trees import count
    from hen_jax.io import hf
    from hen_jax.models.decoder import abstract, merge, split
    from hen_jax.sampling.generate import lay_out

    config = hf.read_config(folder)
    params = jax.tree.map(jax.numpy.asarray, hf.read_params(folder, config, "float32"))
    graphdef = split(abstract(config)).graphdef
    return jax.jit(lambda tree: lay_out(merge(graphdef, tree)))(params), 4 * count(params)


def compile_ours(weights, prompts: list[list[int]], new: int):
    """A function of nothing that generates, and the seconds its compilation took."""
    import jax

    from hen_jax.sampling.generate import Generating, generate, pad_prompts
    from hen_jax.sampling.logits import Sampling

    settings = Generating(new, stop=(), sampling=Sampling(temperature=0.0))
    inputs = weights, pad_prompts(prompts), jax.random.key(0)
    start = time.perf_counter()
    compiled = jax.jit(generate, static_argnames="settings").lower(*inputs, settings).compile()
    seconds = time.perf_counter() - start

    def timed() -> dict:
        start = time.perf_counter()
        out = jax.block_until_ready(compiled(*inputs))
        return {"seconds": time.perf_counter() - start, "tokens": out.tokens.tolist()}

    return timed, seconds


def compare(weights, weight_bytes: int, peer: Peer, prompts, new: int, rounds: int) -> dict:
    """One row of the table: medians over alternating rounds."""
    rows = len(prompts)
    ours, compile_seconds = compile_ours(weights, prompts, new)
    warm = ours(), peer.generate(prompts, new)
    pairs = [(ours(), peer.generate(prompts, new)) for _ in range(rounds)]
    speeds = [[rows * new / side["seconds"] for side in pair] for pair in pairs]
    mine, theirs = (statistics.median(side) for side in zip(*speeds, strict=True))
    limit = rows * bandwidth() / weight_bytes
    same = [
        sum(a == b for a, b in zip(x, y, strict=True))
        for x, y in zip(warm[0]["tokens"], warm[1]["tokens"], strict=True)
    ]
    return {
        "batch": rows,
        "new_tokens": new,
        "ours_tokens_per_s": mine,
        "theirs_tokens_per_s": theirs,
        "ratio": mine / theirs,
        "ratio_by_round": [a / b for a, b in speeds],
        "bandwidth_limit_tokens_per_s": limit,
        "share_of_limit": mine / limit,
        "compile_s": compile_seconds,
        "equal_tokens": sum(same) / (rows * new),
    }


def show(result: dict) -> None:
    print(
        f"{'batch':>5} {'ours':>8} {'theirs':>8} {'ratio':>6} {'limit':>8} {'share':>6} "
        f"{'compile':>8} {'equal':>6}   (tokens/s; limit by memory bandwidth)"
    )
    for row in result["rows"]:
        print(
            f"{row['batch']:>5} {row['ours_tokens_per_s']:>8.1f} {row['theirs_tokens_per_s']:>8.1f}"
            f" {row['ratio']:>6.2f} {row['bandwidth_limit_tokens_per_s']:>8.1f}"
            f" {row['share_of_limit']:>6.0%} {row['compile_s']:>6.1f} s {row['equal_tokens']:>6.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--peer-python", default=".venv-interop/bin/python")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("generate_vs_transformers.json"))
    options = parser.parse_args()

    import jax

    from hen_jax.core.files import write_json
    from hen_jax.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(options.model)
    prompts = [tokenizer.encode(text) for text in TEXTS]
    weights, weight_bytes = open_ours(options.model)
    peer = Peer(options.peer_python, options.model)
    load = os.getloadavg()[0]
    rows = [
        compare(
            weights,
            weight_bytes,
            peer,
            [prompts[row % len(prompts)] for row in range(batch)],
            options.new_tokens,
            options.rounds,
        )
        for batch in options.batch
    ]
    peer.close()
    result = {
        "model": options.model.name,
        "cores": os.cpu_count(),
        "load_before": load,
        "versions": {"jax": jax.__version__, **peer.versions},
        "rows": rows,
    }
    show(result)
    write_json(options.out, result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve-peer"]:
        serve_peer(sys.argv[2])
    else:
        main()

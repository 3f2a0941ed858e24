"""Tokens per second of a server whose streams use four adapters, against llama.cpp's server.

Streams over HTTP, as many as slots, each of another expert; the same prompts, lengths and adapters
(random, of rank 16, on all layers) on both sides; llama.cpp on an F16 file. `first_p95` are seconds
to the first text. Ours with one expert for all streams stands beside it.

    python benchmarks/serving.py --model models/smollm2-135m --llama-python .venv-interop/bin/python
"""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duel

ROWS, NEW, RANK = 8, 64, 16
TEXT = "My scooter broke down in the rain, on the way to my sister's wedding, and I was late. "


def adapters(folder: Path, count: int) -> list:
    """Random ones, alike on both sides."""
    import jax
    import numpy as np

    from hen_jax.io import hf
    from hen_jax.models.config import LoraConfig
    from hen_jax.models.decoder import abstract, split
    from hen_jax.serving.shelf import Adapter

    lora, rng = LoraConfig(RANK, 2.0 * RANK), np.random.default_rng(0)
    shapes = split(abstract(hf.read_config(folder), lora)).adapter

    def leaf(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        return (0.01 * rng.standard_normal(shape.shape)).astype("f4")

    return [Adapter(lora, jax.tree.map(leaf, shapes)) for _ in range(count)]


def asked(count: int) -> list[tuple[int, str]]:
    """An adapter's number and a prompt for each request; no prompt begins as another."""
    return [(n % 4, f"{n} {n} {n}: {TEXT * (1 + n % 3)}") for n in range(count)]


def streamed(url: str, body: dict) -> tuple[float, int]:
    """Seconds to the first event with a text, and events with one."""
    raw = json.dumps(body | {"stream": True}).encode()
    headers = {"content-type": "application/json"}
    began, first, count = time.perf_counter(), None, 0
    with urllib.request.urlopen(urllib.request.Request(url, raw, headers), timeout=600) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0].get("text"):
                first = time.perf_counter() - began if first is None else first
                count += 1
    assert first is not None
    return first, count


def measured(body_of: Callable[[int, str], dict], url: str, task: dict) -> dict:
    """All requests by as many threads as there are slots."""
    firsts: list[float] = []
    requests = asked(ROWS * task["turns"])

    def whole() -> None:
        with ThreadPoolExecutor(ROWS) as pool:
            told = list(pool.map(lambda one: streamed(url, body_of(*one)), requests))
        firsts[:] = [first for first, _ in told]

    whole()
    found = duel.timed(whole, task["repeats"])
    late = sorted(firsts)[int(0.95 * len(firsts))]
    return found | {"amount": NEW * len(requests), "first_p95": late}


def ours(task: dict) -> dict:
    import socket

    import uvicorn

    from hen_jax.serving.app import app_of
    from hen_jax.verbs.serve.model import ServeRequest, open_served

    folder, places = Path(task["model"]), task["places"]
    request = ServeRequest(
        model=folder, name="base", rows=ROWS, places=512, chunk=4, max_experts=places, max_rank=RANK
    )
    served = open_served(request)
    for number, one in enumerate(adapters(folder, places)):
        served.worker.call(
            lambda engine, n=number, a=one: served.experts.load(engine, f"e{n}", a, "")
        ).result()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app_of(served), log_level="error", lifespan="off"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/completions"

    def body(number: int, prompt: str) -> dict:
        own = {"model": f"e{number % places}", "prompt": prompt, "max_tokens": NEW}
        return own | {"temperature": 0, "ignore_eos": True}

    return measured(body, url, task)


def llama_cpp(task: dict) -> dict:
    import os

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = task["gguf"]
    params.n_parallel, params.n_ctx = ROWS, ROWS * 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
    params.n_threads_http = ROWS + 2
    params.fit_params, params.verbosity = False, 0
    made = []
    for path in task["loras"]:
        made.append(xllamacpp.CommonAdapterLoraInfo())
        made[-1].path, made[-1].scale = path, 0.0
    params.lora_adapters = made
    server = xllamacpp.Server(params)

    def body(number: int, prompt: str) -> dict:
        lora = [{"id": n, "scale": float(n == number)} for n in range(len(made))]
        own = {"prompt": prompt, "max_tokens": NEW, "temperature": 0.0, "ignore_eos": True}
        return own | {"lora": lora}

    return measured(body, f"{server.listening_address}/v1/completions", task)


def written(folder: Path, out: Path) -> dict:
    """The files that llama.cpp reads."""
    from hen_jax.io import hf, layout
    from hen_jax.io.companions import end_ids
    from hen_jax.io.gguf_vocabulary import read_vocabulary
    from hen_jax.io.gguf_write import write_gguf, write_gguf_adapter

    out.mkdir(parents=True, exist_ok=True)
    config = hf.read_config(folder)
    words = read_vocabulary(folder, config.vocab_size, end_ids(folder))
    tensors = layout.hf_tensors(hf.read_params(folder, config), config, None)
    write_gguf(out / "model.gguf", config, tensors, words, dtype="float16")
    for number, (lora, leaves) in enumerate(adapters(folder, 4)):
        write_gguf_adapter(out / f"lora{number}.gguf", config, lora, leaves)
    loras = [str(out / f"lora{number}.gguf") for number in range(4)]
    return {"gguf": str(out / "model.gguf"), "loras": loras}


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--llama-python", default=".venv-interop/bin/python")
    parser.add_argument("--places", type=int, nargs="+", default=[1, 4], help="experts of ours")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--turns", type=int, default=4, help="requests of each stream")
    options = parser.parse_args()
    task = {"model": str(options.model), "repeats": options.repeats, "turns": options.turns}
    sides = {
        f"ours, {places} experts": duel.Side("ours", task | {"places": places})
        for places in options.places
    }
    files = written(options.model, options.out.parent / "serving-gguf")
    sides["llama.cpp"] = duel.Side("llama_cpp", task | files, options.llama_python)
    runs = duel.meet(sides, options.rounds)
    duel.report(runs, "llama.cpp", options.out, show=("first_p95",))


if __name__ == "__main__":
    duel.main(compare, ours, llama_cpp)

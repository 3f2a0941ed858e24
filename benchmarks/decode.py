"""Tokens per second of the engine, against transformers', llama.cpp's and an earlier build's.

    python benchmarks/decode.py --model models/smollm2-135m --gguf F32.gguf F16.gguf \\
        --llama-python LLAMA/bin/python --work equal ragged groups --rows 1 8 32

Work: "equal", short prompts with 128 new tokens each; "ragged", three times as many requests as
rows, replies of geometric length (mean 64, at most 256); "groups", 8 samples of 64 tokens behind
each prompt of 300. Stop tokens are off and all is greedy. Seconds are of whole calls, prefill
included; compilation and a warm-up call are left out. Beside them: the share of the memory
bandwidth (1 row) and of the matrix products' rate that were measured in the same process.
"""

import math
import os
import random
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
GROUP = 8


def ours(task: dict) -> dict:
    """The engine, with as many slots as rows."""
    import jax

    from hen_jax.core.trees import count
    from hen_jax.io import hf
    from hen_jax.models.config import Execution
    from hen_jax.models.decoder import abstract, split
    from hen_jax.sampling.engine import Engine
    from hen_jax.sampling.logits import Sampling
    from hen_jax.sampling.requests import Request
    from hen_jax.sampling.slots import Slots
    from hen_jax.sampling.weights import weights_from

    folder, rows = Path(task["model"]), task["rows"]
    config = hf.read_config(folder)
    params = jax.tree.map(jax.numpy.asarray, hf.read_params(folder, config, task["dtype"]))
    graphdef = split(abstract(config, None, Execution(task["dtype"], remat="none"))).graphdef
    weights = weights_from(graphdef)(params)
    engine = Engine(weights, Slots(rows, task["places"], stops=0, biases=0))
    greedy = Sampling(temperature=0.0)
    asked = [
        Request(tuple(prompt), new, sampling=greedy)
        for prompt, new in zip(task["prompts"], task["new"], strict=True)
    ]

    def whole() -> list:
        engine.use(weights)  # what earlier calls left in the cache is not used
        return engine.run(asked)

    began = time.perf_counter()
    found = whole()
    compile_s = time.perf_counter() - began
    assert [len(one.tokens) for one in found] == task["new"]
    measured = duel.timed(whole, task["repeats"])
    measured["peak_bytes"] = duel.peak_bytes()
    size = {"float32": 4, "bfloat16": 2}[task["dtype"]]
    per_second = sum(task["new"]) / min(measured["seconds"])
    saved = sum(one.cached_tokens for one in found)
    bound = bandwidth() / (size * count(params)) if rows == 1 else products(rows, task["dtype"])
    return measured | {
        "compile_s": compile_s,
        "saved": saved,
        "share": per_second / (bound if rows == 1 else bound / (2 * count(params))),
    }


def bandwidth(rounds: int = 7) -> float:
    """Bytes per second of reading 1 GiB with every core at once; the best round."""
    import numpy as np

    cores = os.cpu_count() or 1
    parts = np.array_split(np.ones(2**28, np.float32), cores)
    with ThreadPoolExecutor(cores) as pool:
        found = duel.timed(lambda: list(pool.map(lambda part: part @ part, parts)), rounds)
    return 2**30 / min(found["seconds"])


def products(rows: int, dtype: str, rounds: int = 7) -> float:
    """Floating-point operations per second of a large square product, in the same library."""
    import jax
    import jax.numpy as jnp

    del rows
    side = 2048
    square = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(square, square))
    found = duel.timed(lambda: jax.block_until_ready(product(square, square)), rounds)
    return 2 * side**3 / min(found["seconds"])


def work_of(name: str, rows: int, encode) -> dict:
    """Prompts, and how many new tokens each gets."""
    prompts = [encode(TEXTS[row % len(TEXTS)]) for row in range(rows)]
    if name == "equal":
        return {"prompts": prompts, "new": [128] * rows}
    draw = random.Random(0)
    if name == "ragged":
        texts = [
            encode(" ".join(draw.choices(TEXTS, k=draw.randint(1, 6)))) for _ in range(3 * rows)
        ]
        shares = [draw.random() for _ in texts]
        lengths = [min(256, 1 + int(math.log(1 - one) / math.log(1 - 1 / 64))) for one in shares]
        return {"prompts": texts, "new": lengths}
    long = [encode(" ".join(draw.choices(TEXTS, k=60)))[:300] for _ in range(max(1, rows // GROUP))]
    return {"prompts": [one for one in long for _ in range(GROUP)], "new": [64] * len(long) * GROUP}


def sides_of(options, name: str, rows: int, encode) -> dict[str, duel.Side]:
    """All contenders of one row of the table."""
    task = work_of(name, rows, encode) | {"model": str(options.model), "rows": rows}
    task["repeats"] = options.repeats
    needed = max(len(p) + n for p, n in zip(task["prompts"], task["new"], strict=True))
    task["places"] = max(needed, options.places)
    sides = {f"ours {dtype}": duel.Side("ours", task | {"dtype": dtype}) for dtype in options.dtype}
    for way in options.ways:
        for dtype in options.dtype:
            given = task | {"dtype": dtype, "way": way, "dynamic": False}
            call = "decode_peers.py:transformers"
            sides[f"transformers {way} {dtype}"] = duel.Side(call, given, options.peer_python)
    for path in options.gguf:
        for flash in options.flash:
            given = task | {"gguf": str(path), "flash": flash}
            call = "decode_peers.py:llama_cpp"
            sides[f"llama.cpp {path.stem} {flash}"] = duel.Side(call, given, options.llama_python)
    if options.earlier is not None:
        environ = {"PYTHONPATH": str(options.earlier)}
        for way in ("plain", "repeated")[: 2 if name == "groups" else 1]:
            given = task | {"dtype": options.dtype[0], "way": way, "group": GROUP}
            side = duel.Side("decode_peers.py:earlier", given, environ=environ)
            sides[f"earlier {way} {options.dtype[0]}"] = side
    return sides


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--work", nargs="+", default=["equal", "ragged", "groups"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument(
        "--ways", nargs="*", default=["dynamic", "static", "compiled", "continuous"]
    )
    parser.add_argument("--gguf", type=Path, nargs="*", default=[], help="files for llama.cpp")
    parser.add_argument("--places", type=int, default=0, help="of a row of ours, at least")
    parser.add_argument("--flash", nargs="+", default=["auto"], help="auto, on or off")
    parser.add_argument("--llama-python", default=".venv-interop/bin/python")
    parser.add_argument("--earlier", type=Path, help="a checkout of the build before the engine")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls of a process")
    options = parser.parse_args()
    from hen_jax.text.tokenizer import load_tokenizer

    encode = load_tokenizer(options.model).encode
    for name in options.work:
        for rows in options.rows:
            sides = sides_of(options, name, rows, encode)
            runs = duel.meet(sides, options.rounds, may_not_fit=True)
            for side, some in runs.items():
                for run in some:
                    run["amount"] = sum(sides[side].task["new"])
                    run["per_second"] = duel.speeds([run])[0]
            print(
                f"\n{name}, {rows} rows, {sum(next(iter(sides.values())).task['new'])} new tokens"
            )
            out = options.out.with_stem(f"{options.out.stem}-{name}-{rows}")
            others = [
                one
                for one in ("transformers", "llama.cpp", "earlier")
                if any(map(str.startswith, runs, [one] * len(runs)))
            ]
            against = duel.fastest(runs, others[0] if others else "ours")
            duel.report(runs, against, out, show=("per_second", "share", "compile_s", "saved"))


if __name__ == "__main__":
    duel.main(compare, ours)

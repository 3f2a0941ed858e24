"""The other sides of `decode.py`: transformers' ways, llama.cpp, an earlier build of ours.

Each returns seconds of whole calls for a task of prompts and the new tokens that each must get.
"""

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import duel


def transformers(task: dict) -> dict:
    """`generate` with a cache and compilation as `task["way"]` says, a batch of rows at a time.

    All rows of a batch go on to the longest of it; what a row gets beyond its own is not counted.
    """
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[task["dtype"]]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=dtype, trust_remote_code=False
    ).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    if task["way"] == "continuous":
        _continuous(model, task)
        return duel.timed(lambda: _continuous(model, task), task["repeats"])
    if task["way"] == "compiled":
        model.forward = torch.compile(model.forward, dynamic=task["dynamic"])
    cache = {} if task["way"] == "dynamic" else {"cache_implementation": "static"}

    @torch.inference_mode()
    def batch(rows: list[tuple[list[int], int]]) -> None:
        width = max(len(prompt) for prompt, _ in rows)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in rows])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one, _ in rows])
        new = max(count for _, count in rows)
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            disable_compile=True,
            **cache,
        )

    def whole() -> None:
        work = list(zip(task["prompts"], task["new"], strict=True))
        for start in range(0, len(work), task["rows"]):
            batch(work[start : start + task["rows"]])

    whole()
    return duel.timed(whole, task["repeats"])


def _continuous(model, task: dict) -> None:
    """Paged continuous batching, each request with a length of its own."""
    from transformers import GenerationConfig

    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    settings.max_new_tokens = max(task["new"])
    with model.continuous_batching_context_manager(generation_config=settings) as manager:
        for prompt, new in zip(task["prompts"], task["new"], strict=True):
            manager.add_request(input_ids=prompt, max_new_tokens=new)
        left = len(task["prompts"])
        while left:
            found = manager.get_result(timeout=1)
            left -= found is not None and found.is_finished()


def llama_cpp(task: dict) -> dict:
    """llama.cpp's server, a slot per row, asked over its own port by as many threads."""
    import xllamacpp
    from xllamacpp import llama_flash_attn_type

    params = xllamacpp.CommonParams()
    params.model.path = task["gguf"]
    params.n_parallel = task["rows"]
    params.n_ctx = task["rows"] * (-(-task["places"] // 256) * 256)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
    params.n_threads_http = task["rows"] + 2
    params.fit_params = False
    params.verbosity = 0
    kinds = llama_flash_attn_type
    fused = {
        "auto": kinds.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }
    params.flash_attn_type = fused[task["flash"]]
    server = xllamacpp.Server(params)

    def ask(work: tuple[list[int], int]) -> int:
        prompt, new = work
        asked = {"prompt": prompt, "n_predict": new, "ignore_eos": True, "temperature": 0.0}
        asked |= {"samplers": ["top_k"], "top_k": 1, "cache_prompt": False}
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())["tokens_predicted"]

    def whole() -> None:
        with ThreadPoolExecutor(task["rows"]) as pool:
            made = list(pool.map(ask, zip(task["prompts"], task["new"], strict=True)))
        assert made == task["new"], made

    whole()
    return duel.timed(whole, task["repeats"])


def earlier(task: dict) -> dict:
    """The build before the engine: rows that start together, in batches, to the longest of each."""
    from pathlib import Path

    import jax

    from hen_jax.io import hf
    from hen_jax.models.config import Execution
    from hen_jax.models.decoder import abstract, merge, split
    from hen_jax.sampling import generate as g
    from hen_jax.sampling.logits import Sampling

    folder = Path(task["model"])
    config = hf.read_config(folder)
    params = jax.tree.map(jax.numpy.asarray, hf.read_params(folder, config, task["dtype"]))
    graphdef = split(abstract(config, None, Execution(task["dtype"], remat="none"))).graphdef
    weights = jax.jit(lambda tree: g.lay_out(merge(graphdef, tree)))(params)
    run = jax.jit(g.generate, static_argnames="settings")
    read = jax.jit(g.prefill, static_argnames="max_new_tokens")
    repeat = jax.jit(g.repeated, static_argnames="times")
    write = jax.jit(g.decode, static_argnames="settings")

    def batch(prompts: list[list[int]], new: int) -> None:
        settings, key = g.Generating(new, (), sampling=Sampling(temperature=0.0)), jax.random.key(0)
        if task["way"] == "repeated":  # one prefill a group
            alone = g.pad_prompts(prompts[:: task["group"]])
            start = repeat(read(weights, alone, max_new_tokens=new), times=task["group"])
            jax.block_until_ready(write(weights, start, key, settings=settings))
        else:
            jax.block_until_ready(run(weights, g.pad_prompts(prompts), key, settings=settings))

    def whole() -> None:
        for start in range(0, len(task["prompts"]), task["rows"]):
            rows = slice(start, start + task["rows"])
            batch(task["prompts"][rows], max(task["new"][rows]))

    whole()
    return duel.timed(whole, task["repeats"])


if __name__ == "__main__":
    duel.main(lambda: "run decode.py", transformers, llama_cpp, earlier)

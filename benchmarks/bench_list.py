"""The side-by-side benchmarks: what each compares, the command that runs it, how it is read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Reports = Sequence[Mapping[str, Any]]
"""What `duel.report` wrote, in the order of their names' numbers."""


class Figures(NamedTuple):
    """A benchmark's cells, as text."""

    ratio: str
    spread: str  # of the rounds
    memory: str


class Benchmark(NamedTuple):
    """A row of the tables, and how it is measured."""

    what: str
    against: str
    command: str  # with `{model}` and others of `FILLED` in it
    read: Callable[[Reports], Figures]


def verdict(reports: Reports) -> Figures:
    """Of each report our fastest against the peer that it names, which is the peer's fastest."""
    ratios, spreads, peaks = [], [], []
    for one in reports:
        others = {name: row for name, row in one["rows"].items() if name != one["against"]}
        mine = {name: row for name, row in others.items() if name.startswith("ours")} or others
        row = max(mine.values(), key=lambda row: row["speed"][0])
        median, low, high = row["speed"]
        ratios.append(f"{median:.2f}x")
        spreads.append(f"{low:.2f} to {high:.2f}")
        peaks.append(f"{row['peak'][0]:.2f}x")
    return Figures(", ".join(ratios), ", ".join(spreads), ", ".join(peaks))


def by_cpu_seconds(reports: Reports) -> Figures:
    """As `verdict`, by the seconds of the processor, which other work hardly touches."""
    (one,) = reports
    median, low, high = one["rows"]["ours"]["speed_by_cpu_seconds"]
    return Figures(f"{median:.2f}x by CPU seconds", f"{low:.2f} to {high:.2f}", "")


def importing(reports: Reports) -> Figures:
    """The rate of an import as a share of reading alone, and its memory in largest tensors."""
    (one,) = reports
    row, bare = one["rows"]["import"], one["rows"]["import, HEN_VERIFY=off"]
    median, low, high = row["speed"]
    told = f"{median:.2f}x, {row['MB/s']:.0f} MB/s; without checksums {bare['MB/s']:.0f}"
    beyond = f"{row['beyond']:.1f} of the largest tensor beside them"
    return Figures(told, f"{low:.2f} to {high:.2f}", beyond)


def beside_one(reports: Reports) -> Figures:
    """Every contender against the one that is named, in the order of the report."""
    (one,) = reports
    others = [row for name, row in one["rows"].items() if name != one["against"]]
    speeds = [row["speed"] for row in others]
    return Figures(
        ", ".join(f"{median:.2f}x" for median, _, _ in speeds),
        ", ".join(f"{low:.2f} to {high:.2f}" for _, low, high in speeds),
        ", ".join(f"{row['peak'][0]:.2f}x" for row in others),
    )


def planned(reports: Reports) -> Figures:
    """Memory per chip on both sides, which has no spread."""
    (one,) = reports
    ours, theirs = (one[name][0]["peak"] / 2**30 for name in ("ours", "theirs"))
    return Figures("", "", f"{ours:.2f} against {theirs:.2f} GiB")


SFT = "sft_vs_trl.py --model {model} --rounds 3 --peer-python {peer}"
REWARD = "reward_vs_trl.py --model {model} --pairs-file {pairs} --rounds 3 --peer-python {peer}"
EQUAL = "generation at 1, 8, 32 rows, 128 new tokens"
SAMPLES = "generation for 8 samples behind each prompt of 300 tokens"
DECODE = "decode.py --model {model} --work equal --dtype float32"
GROUPS = "decode.py --model {model} --work groups --rows 8 --dtype float32"
BENCHMARKS = {
    "sft": Benchmark(
        "SFT, an epoch of packed rows, trained tokens/s",
        "TRL with PEFT",
        SFT,
        verdict,
    ),
    "sft_shared_prefix": Benchmark(
        "SFT in rows of 512, a common system prompt once a row, trained tokens/s",
        "TRL with PEFT",
        f"{SFT} --updates 6 --row-length 512",
        verdict,
    ),
    "meta": Benchmark(
        "exact meta-gradient, 4 records a step",
        "PyTorch",
        "meta_vs_torch.py --model {model} --rounds 3 --large-pages --peer-python {peer}",
        verdict,
    ),
    "decode": Benchmark(
        EQUAL,
        "transformers, dynamic cache",
        f"{DECODE} --ways dynamic --peer-python {{peer}}",
        verdict,
    ),
    "decode_gguf_float32": Benchmark(
        EQUAL,
        "llama.cpp, float32 weights",
        f"{DECODE} --ways --gguf {{gguf_float32}} --llama-python {{peer}}",
        verdict,
    ),
    "decode_gguf_float16": Benchmark(
        f"{EQUAL}, ours in float32",
        "llama.cpp, float16 weights",
        f"{DECODE} --ways --gguf {{gguf_float16}} --llama-python {{peer}}",
        verdict,
    ),
    "groups": Benchmark(
        SAMPLES,
        "transformers",
        f"{GROUPS} --ways dynamic --repeats 1 --peer-python {{peer}}",
        verdict,
    ),
    "groups_gguf_float16": Benchmark(
        f"{SAMPLES}, ours in float32",
        "llama.cpp, float16 weights",
        f"{GROUPS} --ways --repeats 1 --gguf {{gguf_float16}} --llama-python {{peer}}",
        verdict,
    ),
    "grpo": Benchmark(
        "GRPO step, 2 prompts of 300 tokens, 8 replies of 64",
        "TRL with PEFT, its fastest way",
        "grpo_vs_trl.py --model {model} --prompts 2 --repeats 1 --peer-python {peer}",
        verdict,
    ),
    "dpo": Benchmark(
        "DPO, an epoch of steered pairs, pairs/s",
        "TRL with PEFT",
        "dpo_vs_trl.py --model {model} --rounds 3 --peer-python {peer}",
        verdict,
    ),
    "reward": Benchmark(
        "a reward model, an epoch of 256 HH-RLHF pairs, pairs/s",
        "TRL with PEFT",
        f"{REWARD} --work train",
        verdict,
    ),
    "reward_scores": Benchmark(
        "both sides of 400 HH-RLHF pairs scored",
        "transformers' sequence classification",
        f"{REWARD} --work score",
        verdict,
    ),
    "likelihood": Benchmark(
        "the items of hen-bench@1 by likelihood",
        "lm-eval's Hugging Face backend",
        "likelihood_vs_lm_eval.py --model {model} --rounds 3 --peer-python {peer}",
        verdict,
    ),
    "data": Benchmark(
        "4,000 SMILECHAT dialogues rendered and packed",
        "TRL",
        "data_vs_trl.py {model} {conversations} --peer-python {peer}",
        verdict,
    ),
    "import": Benchmark(
        "2.5 GB of bfloat16 shards into their arrays, compared with their checksums meanwhile",
        "reading the files alone",
        "import_speed.py --layers 1",
        importing,
    ),
    "plan": Benchmark(
        "memory per chip of a full step, planned",
        "MaxText",
        "plan_vs_maxtext.py --peer-python {maxtext}",
        planned,
    ),
    "start": Benchmark(
        "`hen run --config=sft:tiny` to its first update, caches warm",
        "our previous build",
        "builds.py --what warm --config configs/sft.py:tiny --peer {checkout}",
        by_cpu_seconds,
    ),
    "serving": Benchmark(
        "streams of a server, each of another of four adapters",
        "llama.cpp's server",
        "serving.py --model {model} --llama-python {peer}",
        verdict,
    ),
    "experts": Benchmark(
        "four experts trained together",
        "four runs of TRL with PEFT, one after another",
        "experts_vs_trl.py --model {model} --rounds 3 --peer-python {peer}",
        verdict,
    ),
    "experts_training": Benchmark(
        "a training step for 4 and for 32 experts",
        "the same rows for one",
        "experts_cost.py --model {model} --what train",
        beside_one,
    ),
    "experts_decoding": Benchmark(
        "replies by 4 and by 32 experts in one batch",
        "the same batch by one",
        "experts_cost.py --model {model} --what decode",
        beside_one,
    ),
    "methods": Benchmark(
        "several prompting methods over 8 conversations, in one batch",
        "one call after another",
        "compare_methods.py --model {model} --rounds 3",
        verdict,
    ),
    "k_centre": Benchmark(
        "1,000 centres among 100,000 embeddings",
        "a loop in numpy",
        "k_centre.py",
        verdict,
    ),
}
"""Name -> benchmark, in the order of the tables."""

FILLED = {
    "model": "--model",
    "peer": "--peer-python",
    "gguf_float32": "--gguf-float32",
    "gguf_float16": "--gguf-float16",
    "conversations": "--conversations",
    "pairs": "--pairs",
    "maxtext": "--maxtext-python",
    "checkout": "--checkout",
}
"""What stands in a command -> the flag that gives it."""

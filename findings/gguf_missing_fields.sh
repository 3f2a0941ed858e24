#!/usr/bin/env bash
# llama.cpp (xllamacpp 2026.10.11549) makes up what a GGUF file lacks, and says nothing: without
# rope.freq_base the base is 10,000 whatever the model was trained with; with the pre-tokenizer
# llama-bpe and neither bos_token_id nor add_bos_token, token 11 is put before every text; an
# adapter without adapter.lora.alpha, or with 0, is added with factor 1. The file loads and speaks.
# Remedy: write every field, and compare with the model at late positions.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.3.5 2>/dev/null
cat > "$work/show.py" <<'PY'
import json
import sys
import urllib.request

import numpy as np
import xllamacpp
from gguf import GGUFWriter

WIDTH, WORDS = 64, [bytes([97 + n // 26, 97 + n % 26]).decode() for n in range(64)]


def write(path, tensors, add):
    writer = GGUFWriter(path, "llama")
    add(writer)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model(path, base=None, pre="gpt-2", bos=True):
    rng = np.random.default_rng(0)
    square = [f"blk.0.attn_{part}" for part in ("q", "k", "v", "output")]
    square += [f"blk.0.ffn_{part}" for part in ("gate", "up", "down")]
    tensors = {
        f"{name}.weight": rng.standard_normal((WIDTH, WIDTH), np.float32) / 4 for name in square
    }
    tensors["token_embd.weight"] = rng.standard_normal((len(WORDS), WIDTH), np.float32)
    tensors |= {
        f"{name}.weight": np.ones(WIDTH, np.float32)
        for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")
    }

    def add(writer):
        for key, value in {
            "block_count": 1,
            "context_length": 256,
            "embedding_length": WIDTH,
            "feed_forward_length": WIDTH,
            "attention.head_count": 2,
        }.items():
            writer.add_uint32(f"llama.{key}", value)
        writer.add_layer_norm_rms_eps(1e-5)
        if base:
            writer.add_rope_freq_base(base)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(WORDS)
        writer.add_token_types([1] * len(WORDS))
        writer.add_token_merges(["a a"])
        writer.add_eos_token_id(1)
        if bos:
            writer.add_bos_token_id(1)
            writer.add_add_bos_token(False)

    return write(path, tensors, add)


def adapter(path, alpha):
    rng = np.random.default_rng(1)
    tensors = {
        f"blk.0.ffn_down.weight.lora_{end}": rng.standard_normal(shape, np.float32) / 4
        for end, shape in (("a", (4, WIDTH)), ("b", (WIDTH, 4)))
    }

    def add(writer):
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        if alpha is not None:
            writer.add_float32("adapter.lora.alpha", alpha)

    return write(path, tensors, add)


def opened(path, lora=None):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = path, 256, 1
    params.warmup, params.verbosity, params.cpuparams.n_threads = False, 0, 1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if lora:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = lora, 1.0
        params.lora_adapters = [info]
    return xllamacpp.Server(params)


def late(path, lora=None):
    """The log-probability of the likeliest token behind 200 others."""
    asked = {
        "prompt": [5 + n % 50 for n in range(200)],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
    }
    answer = opened(path, lora).handle_completions(asked)
    return round(answer["choices"][0]["logprobs"]["content"][0]["logprob"], 4)


work = sys.argv[1]
plain = late(model(f"{work}/10k.gguf", 1e4))
print("base 10,000 written, and left out: equal", late(model(f"{work}/none.gguf")) == plain)
print("base 500,000: equal", late(model(f"{work}/500k.gguf", 5e5)) == plain)
server = opened(model(f"{work}/bos.gguf", 1e4, "llama-bpe", bos=False))
request = urllib.request.Request(
    f"{server.listening_address}/tokenize",
    json.dumps({"content": "ab", "add_special": True}).encode(),
    {"Content-Type": "application/json"},
)
print("ids of 'ab' (1):", json.loads(urllib.request.urlopen(request).read())["tokens"])
said = {
    alpha: late(f"{work}/10k.gguf", adapter(f"{work}/{alpha}.gguf", alpha))
    for alpha in (None, 0.0, 4.0, 8.0)
}
print(
    "alpha left out, 0, and the rank (factor 1): equal",
    said[None] == said[0.0] == said[4.0] != plain,
)
print("alpha twice the rank: equal", said[8.0] == said[4.0])
PY
"$work/venv/bin/python" "$work/show.py" "$work" 2> /dev/null > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
base 10,000 written, and left out: equal True
base 500,000: equal False
ids of 'ab' (1): [11, 1]
alpha left out, 0, and the rank (factor 1): equal True
alpha twice the rank: equal False
SEEN
echo "as recorded"

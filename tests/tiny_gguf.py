"""GGUF files as llama.cpp's converter writes them, with the values their blocks stand for."""

import dataclasses
import json

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from tiny_model import CONFIG
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from hen_jax.io import names

LLAMA = dataclasses.replace(  # widths that K-quants take at a time
    CONFIG, vocab_size=300, width=256, head_dim=64, mlp_width=256, rope_theta=1e5
)
QWEN2 = dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True)
PRE = {"llama": "smollm", "qwen2": "qwen2"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"


def permuted(rows, heads):
    """llama.cpp's converter, `LlamaModel.permute`: the halves of each head interleaved."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def blocks(kind, shape, rng):
    """`(bytes as stored, the values they stand for)` of a matrix."""
    if kind is Kind.Q4_K:
        return _random_blocks(shape, 144, (slice(0, 2), slice(2, 4)), q4_k, rng)
    if kind is Kind.Q6_K:
        return _random_blocks(shape, 210, (slice(208, 210),), q6_k, rng)
    packed = quantize(rng.standard_normal(shape).astype(np.float32), kind)
    return packed, dequantize(packed, kind).astype(np.float32)


def _random_blocks(shape, size, scales, value, rng):
    # The package cannot quantise to these, but any bytes with finite scales are a block.
    packed = rng.integers(0, 256, (shape[0], shape[1] // 256, size), dtype=np.uint8)
    for place in scales:
        small = rng.uniform(0.001, 0.01, packed.shape[:2]).astype(np.float16)
        packed[:, :, place] = small[..., None].view(np.uint8)
    flat = packed.reshape(-1, size)
    return packed.reshape(shape[0], -1), np.stack([value(b) for b in flat]).reshape(shape)


def q4_k(block):
    """`dequantize_row_q4_K` of ggml, one block of 256."""
    d, least = block[:4].view(np.float16).astype(np.float32)
    s, q = block[4:16].astype(int), block[16:]
    values = []
    for j in range(8):
        if j < 4:
            scale, offset = s[j] & 63, s[j + 4] & 63
        else:
            scale = (s[j + 4] & 15) | (s[j - 4] >> 6 << 4)
            offset = (s[j + 4] >> 4) | (s[j] >> 6 << 4)
        half = q[j // 2 * 32 : j // 2 * 32 + 32]
        nibble = half >> 4 if j % 2 else half & 15
        values.append(d * np.float32(scale) * nibble - least * np.float32(offset))
    return np.concatenate(values).astype(np.float32)


def q6_k(block):
    """`dequantize_row_q6_K` of ggml, one block of 256."""
    d = block[208:210].view(np.float16).astype(np.float32)
    scales = block[192:208].view(np.int8).astype(np.float32)
    values = []
    for half in range(2):
        low, high = block[half * 64 : half * 64 + 64], block[128 + half * 32 : 160 + half * 32]
        for part in range(4):
            four = low[part % 2 * 32 : part % 2 * 32 + 32] >> (4 if part > 1 else 0) & 15
            six = (four | (high >> 2 * part & 3) << 4).astype(np.float32) - 32
            values.append(d * np.repeat(scales[half * 8 + 2 * part :][:2], 16) * six)
    return np.concatenate(values).astype(np.float32)


def write_gguf(path, kind=Kind.F32, config=LLAMA, change=lambda writer: None, pre=None, drop=None):
    """A tiny model; returns its Hugging Face tensors as the values the file stands for."""
    writer = GGUFWriter(path, config.family)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_length)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    if config.family == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    write_tokenizer_fields(writer, pre or PRE[config.family])
    change(writer)
    rng = np.random.default_rng(0)
    values = {}
    for row in names.weight_table(config):
        shape = names.hf_shape(row, config)
        layers = zip(
            names.expand(row, row.name, config), names.expand(row, row.gguf, config), strict=True
        )
        for name, stored_name in layers:
            stored_kind = kind if len(shape) == 2 else Kind.F32
            packed, values[name] = blocks(stored_kind, shape, rng)
            heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2])
            if heads is not None and config.family == "llama":
                packed = permuted(packed, heads)
            if name != drop:
                writer.add_tensor(stored_name, packed, raw_dtype=stored_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def write_tokenizer_fields(writer, pre):
    model = trained_tokenizer()
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(300 - len(tokens))]
    kinds = [TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def trained_tokenizer() -> dict:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    text = "the rain and the heart in the hearth 12 2024 12 and  then 7 the rain in the hearth"
    tokenizer.train_from_iterator([text] * 50, trainer)
    return json.loads(tokenizer.to_str())["model"]

"""One table per family: our path <-> Hugging Face name <-> GGUF name.

Import, export, adapters and GGUF all fold over these rows; nothing else knows a weight's name.
Shapes are the model's own, from its parameter table.
"""

import functools
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.models.config import DecoderConfig, LoraConfig
from hen_jax.models.decoder import abstract
from hen_jax.models.parameters import parameter_table


class Weight(NamedTuple):
    """One parameter: `{layer}` in `name` and `gguf` runs over the rows of a stacked leaf.

    Rows that share a `name` lie in one Hugging Face tensor, one after the other along its first
    axis, in the order of the table.
    """

    path: str  # ours
    name: str  # Hugging Face
    gguf: str  # llama.cpp

    @property
    def stacked(self) -> bool:
        """Whether our leaf has a leading layer axis."""
        return "{layer}" in self.name

    @property
    def transposed(self) -> bool:
        """Our kernels are `[in, out]`, those of PyTorch's Linear and of GGUF `[out, in]`."""
        return self.path.endswith("/kernel")

    @property
    def module(self) -> str:
        """The Hugging Face module path, `{layer}` left in: the name without `.weight`."""
        return self.name.rpartition(".")[0]


class Fused(NamedTuple):
    """One Hugging Face tensor, of each layer where `{layer}` is in its name; mostly of one row."""

    name: str
    rows: tuple[Weight, ...]

    @property
    def gguf(self) -> str:
        """llama.cpp's name, which fuses what Hugging Face does."""
        return self.rows[0].gguf


def _block(path: str, name: str, gguf: str, kind: str = "weight") -> Weight:
    return Weight(
        f"blocks/{path}", f"model.layers.{{layer}}.{name}.{kind}", f"blk.{{layer}}.{gguf}.{kind}"
    )


_ENDS = (
    Weight("embed/embedding", "model.embed_tokens.weight", "token_embd.weight"),
    Weight("norm/scale", "model.norm.weight", "output_norm.weight"),
    Weight("head/kernel", "lm_head.weight", "output.weight"),
    Weight("score/kernel", "score.weight", "cls.output.weight"),
)
_NORMS = (
    _block("attn_norm/scale", "input_layernorm", "attn_norm"),
    _block("mlp_norm/scale", "post_attention_layernorm", "ffn_norm"),
)
_QKV = (
    _block("attn/q/kernel", "self_attn.q_proj", "attn_q"),
    _block("attn/k/kernel", "self_attn.k_proj", "attn_k"),
    _block("attn/v/kernel", "self_attn.v_proj", "attn_v"),
)
_GATE_UP = (
    _block("mlp/gate/kernel", "mlp.gate_proj", "ffn_gate"),
    _block("mlp/up/kernel", "mlp.up_proj", "ffn_up"),
)
_O = _block("attn/o/kernel", "self_attn.o_proj", "attn_output")
_DOWN = _block("mlp/down/kernel", "mlp.down_proj", "ffn_down")
_QKV_BIASES = (
    _block("attn/q/bias", "self_attn.q_proj", "attn_q", "bias"),
    _block("attn/k/bias", "self_attn.k_proj", "attn_k", "bias"),
    _block("attn/v/bias", "self_attn.v_proj", "attn_v", "bias"),
)
_QK_NORMS = (
    _block("attn/q_norm/scale", "self_attn.q_norm", "attn_q_norm"),
    _block("attn/k_norm/scale", "self_attn.k_norm", "attn_k_norm"),
)
_GEMMA_NORMS = (
    _block("attn_norm/scale", "input_layernorm", "attn_norm"),
    _block("attn_post_norm/scale", "post_attention_layernorm", "post_attention_norm"),
    _block("mlp_norm/scale", "pre_feedforward_layernorm", "ffn_norm"),
    _block("mlp_post_norm/scale", "post_feedforward_layernorm", "post_ffw_norm"),
)
_FUSED_QKV = tuple(
    _block(f"attn/{part}/kernel", "self_attn.qkv_proj", "attn_qkv") for part in "qkv"
)
_FUSED_GATE_UP = (
    _block("mlp/gate/kernel", "mlp.gate_up_proj", "ffn_up"),
    _block("mlp/up/kernel", "mlp.gate_up_proj", "ffn_up"),
)

LLAMA = (*_ENDS, *_NORMS, *_QKV, _O, *_GATE_UP, _DOWN)

TABLES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": (*LLAMA, *_QKV_BIASES),
    "qwen3": (*LLAMA, *_QK_NORMS),
    "phi3": (*_ENDS, *_NORMS, *_FUSED_QKV, _O, *_FUSED_GATE_UP, _DOWN),
    "gemma2": (*_ENDS, *_GEMMA_NORMS, *_QKV, _O, *_GATE_UP, _DOWN),
    "gemma3_text": (*_ENDS, *_GEMMA_NORMS, *_QKV, *_QK_NORMS, _O, *_GATE_UP, _DOWN),
}
"""Family -> every parameter that any model of it may have."""

GGUF_ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
"""Family -> what llama.cpp calls it."""


def weight_table(config: DecoderConfig) -> tuple[Weight, ...]:
    """One row for every parameter that a decoder of `config` has."""
    paths = set(tensor_shapes(config))
    rows = tuple(row for row in TABLES[config.family] if row.path in paths)
    unnamed = sorted(paths - {row.path for row in rows})
    assert not unnamed, f"the table of {config.family} lacks {unnamed}"
    return rows


def fused(config: DecoderConfig) -> tuple[Fused, ...]:
    """The rows of `table` by the Hugging Face tensor they lie in."""
    groups: dict[str, list[Weight]] = {}
    for row in weight_table(config):
        groups.setdefault(row.name, []).append(row)
    return tuple(Fused(name, tuple(rows)) for name, rows in groups.items())


@functools.lru_cache(maxsize=8)
def tensor_shapes(
    config: DecoderConfig, lora: LoraConfig | None = None
) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by path, adapter leaves included where `lora` is given."""
    parameters = parameter_table(abstract(config, lora))
    return {path: tuple(parameter.shape) for path, parameter in parameters.items()}


def hf_shape(row: Weight, config: DecoderConfig) -> tuple[int, ...]:
    """The shape of one layer of `row` in Hugging Face's layout, `[out, in]`."""
    shape = tensor_shapes(config)[row.path][1 if row.stacked else 0 :]
    return shape[::-1] if row.transposed else shape


def fused_shape(tensor: Fused, config: DecoderConfig) -> tuple[int, ...]:
    """The shape of a Hugging Face tensor: its rows stand one below the other."""
    parts = [hf_shape(row, config) for row in tensor.rows]
    return (sum(part[0] for part in parts), *parts[0][1:])


def layer_parts(tensor: Fused, config: DecoderConfig) -> list[tuple[Weight, slice]]:
    """Each row of a Hugging Face tensor with its place along the first axis."""
    places, start = [], 0
    for row in tensor.rows:
        stop = start + hf_shape(row, config)[0]
        places.append((row, slice(start, stop)))
        start = stop
    return places


def expand(row: Weight | Fused, pattern: str, config: DecoderConfig) -> list[str]:
    """`pattern` (`row.name`, `row.gguf`, ...) once per layer, or once if `row` is not stacked."""
    if "{layer}" not in row.name:
        return [pattern]
    return [pattern.format(layer=layer) for layer in range(config.layers)]


def require_names(found: set[str], expected: set[str], where: str, remedy: str) -> None:
    """Raises `InputError` unless the names found are exactly the expected ones; names them."""
    for label, names in (("is missing", expected - found), ("has leftover", found - expected)):
        if names:
            shown = ", ".join(sorted(names)[:5])
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise InputError(f"{where} {label} weights: {shown}{more}; {remedy}")


def require_shape(found: tuple[int, ...], expected: tuple[int, ...], where: str) -> None:
    """Raises `InputError` unless the shapes are equal; names the weight."""
    if tuple(found) != tuple(expected):
        raise InputError(
            f"{where} has shape {list(found)}, but the config says {list(expected)}; "
            "the config and the weights belong to different models"
        )

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
    """One parameter: `{layer}` in `name` and `gguf` runs over the rows of a stacked leaf."""

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
        return self.name.removesuffix(".weight")


def _block(path: str, name: str, gguf: str) -> Weight:
    return Weight(
        f"blocks/{path}", f"model.layers.{{layer}}.{name}.weight", f"blk.{{layer}}.{gguf}.weight"
    )


LLAMA = (
    Weight("embed/embedding", "model.embed_tokens.weight", "token_embd.weight"),
    _block("attn_norm/scale", "input_layernorm", "attn_norm"),
    _block("attn/q/kernel", "self_attn.q_proj", "attn_q"),
    _block("attn/k/kernel", "self_attn.k_proj", "attn_k"),
    _block("attn/v/kernel", "self_attn.v_proj", "attn_v"),
    _block("attn/o/kernel", "self_attn.o_proj", "attn_output"),
    _block("mlp_norm/scale", "post_attention_layernorm", "ffn_norm"),
    _block("mlp/gate/kernel", "mlp.gate_proj", "ffn_gate"),
    _block("mlp/up/kernel", "mlp.up_proj", "ffn_up"),
    _block("mlp/down/kernel", "mlp.down_proj", "ffn_down"),
    Weight("norm/scale", "model.norm.weight", "output_norm.weight"),
    Weight("head/kernel", "lm_head.weight", "output.weight"),
)

TABLES = {"llama": LLAMA}


def table(config: DecoderConfig) -> tuple[Weight, ...]:
    """One row for every parameter that a decoder of `config` has."""
    paths = set(shapes(config))
    rows = tuple(row for row in TABLES[config.family] if row.path in paths)
    unnamed = sorted(paths - {row.path for row in rows})
    assert not unnamed, f"the table of {config.family} lacks {unnamed}"
    return rows


@functools.lru_cache(maxsize=8)
def shapes(config: DecoderConfig, lora: LoraConfig | None = None) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by path, adapter leaves included where `lora` is given."""
    parameters = parameter_table(abstract(config, lora))
    return {path: tuple(parameter.shape) for path, parameter in parameters.items()}


def hf_shape(row: Weight, config: DecoderConfig) -> tuple[int, ...]:
    """The shape of one Hugging Face tensor of `row`: one layer, `[out, in]`."""
    shape = shapes(config)[row.path][1 if row.stacked else 0 :]
    return shape[::-1] if row.transposed else shape


def expand(row: Weight, pattern: str, config: DecoderConfig) -> list[str]:
    """`pattern` (`row.name`, `row.gguf`, ...) once per layer, or once if `row` is not stacked."""
    if not row.stacked:
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
    if tuple(found) != expected:
        raise InputError(
            f"{where} has shape {list(found)}, but the config says {list(expected)}; "
            "the config and the weights belong to different models"
        )

"""Gemma 3, text only: Gemma 2 with q and k normed, no cap on scores, and two rope bases."""

from collections.abc import Mapping
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import gemma2, hf_fields, rope_fields, window_fields
from hen_jax.models.families.window_fields import FULL, SLIDING

_LOCAL = "rope_local_base_freq"
_PATTERNS = ("sliding_window_pattern", "_sliding_window_pattern")

_READ = (
    hf_fields.SIZE_KEYS
    | rope_fields.KEYS
    | {
        _LOCAL,
        *_PATTERNS,
        "final_logit_softcapping",
        "layer_types",
        "query_pre_attn_scalar",
        "sliding_window",
    }
)

_FIXED = gemma2.FIXED | {
    "architectures": (*hf_fields.architectures("Gemma3Text"), ["Gemma3ForCausalLM"]),
    "attn_logit_softcapping": (None,),
    "model_type": ("gemma3_text",),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Gemma 3 text `config.json`; absent keys take the defaults of `Gemma3TextConfig`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, _READ, _FIXED)
    rope, local = _ropes(config)
    window = window_fields.width(config, default=4096)
    period = next((config[key] for key in _PATTERNS if key in config), 6)
    return DecoderConfig(
        family="gemma3_text",
        **gemma2.gemma_sizes(config, max_length=131072),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        local_rope_theta=local,
        **window_fields.read_windows(
            config, window, lambda layer: (layer + 1) % period == 0
        )._asdict(),
        final_softcap=hf_fields.optional(config, "final_logit_softcapping", None),
        qk_norm=True,
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    prefix = "Gemma3Text" if config.score_head else "Gemma3"
    full = {"rope_theta": config.rope_theta, **rope_fields.scaling_fields(config.rope_scaling)}
    local = {"rope_theta": config.local_rope_theta, "rope_type": "default"}
    return {
        "architectures": hf_fields.architecture(prefix, config),
        "model_type": "gemma3_text",
        **gemma2.gemma_size_fields(config),
        **rope_fields.write(rope_fields.Rope(config.rope_theta, config.rope_scaling)),
        _LOCAL: config.local_rope_theta,
        "rope_parameters": {FULL: full, SLIDING: local},
    }


def _ropes(config: Mapping[str, Any]) -> tuple[rope_fields.Rope, float]:
    """The rope of layers that see everything, and the base of those with a window."""
    spellings = []
    new = config.get("rope_parameters")
    if new is not None:
        if not isinstance(new, dict) or set(new) != {FULL, SLIDING}:
            raise InputError(
                f"config key 'rope_parameters' is {new!r}; it must hold {FULL!r} and {SLIDING!r}"
            )
        local = rope_fields.read_rope({"rope_parameters": new[SLIDING]}, ("default",), 1e4)
        full = rope_fields.read_rope({"rope_parameters": new[FULL]}, ("default", "linear"), 1e6)
        spellings.append((full, local.theta))
    old = {key: config[key] for key in ("rope_theta", "rope_scaling", _LOCAL) if key in config}
    if old or new is None:
        full = rope_fields.read_rope(old, ("default", "linear"), 1e6)
        spellings.append((full, hf_fields.number(old, _LOCAL, 1e4)))
    if spellings[0] != spellings[-1]:
        raise InputError(
            f"config keys 'rope_parameters' and 'rope_theta'/'rope_scaling'/{_LOCAL!r} disagree: "
            f"{spellings[0]} and {spellings[-1]}; keep one"
        )
    return spellings[0]

"""The rope fields of a Hugging Face config, in both spellings, both ways."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.models.config import LinearScaling, LongRope, RopeScaling
from hen_jax.models.families.hf_fields import integer, number

KEYS = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})
"""The old spelling (theta and scaling apart, transformers < 5) and the new (one dict)."""

PARTIAL = "partial_rotary_factor"

_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "longrope": (
        "short_factor",
        "long_factor",
        "factor",
        "attention_factor",
        "original_max_position_embeddings",
    ),
}

_OLD_NAMES = {"su": "longrope"}

Scaling = RopeScaling | LinearScaling | LongRope | None


class Rope(NamedTuple):
    """The base, its scaling, and the share of each head that is rotated."""

    theta: float
    scaling: Scaling = None
    partial: float = 1.0


def read_rope(
    config: Mapping[str, Any],
    types: Collection[str] = ("default", "linear", "llama3"),
    theta: float = 10000.0,
) -> Rope:
    """The rope of a config in either spelling; `theta` is the default base.

    Example: `{"rope_theta": 5e5}` and `{"rope_parameters": {"rope_theta": 5e5, "rope_type":
    "default"}}` both give `Rope(5e5, None, 1.0)`. Where a file holds both they must agree.

    Raises:
      InputError: a rope type not in `types`, an unknown key, or two spellings that disagree.
    """
    spellings = []
    new = config.get("rope_parameters")
    if new is not None:
        _require_dict("rope_parameters", new)
        base = number(new if "rope_theta" in new else config, "rope_theta", theta)
        spellings.append(_rope(base, new, "rope_parameters", config, types))
    if new is None or "rope_theta" in config or config.get("rope_scaling") is not None:
        old = config.get("rope_scaling") or {}
        _require_dict("rope_scaling", old)
        base = number(config, "rope_theta", theta)
        spellings.append(_rope(base, old, "rope_scaling", config, types))
    if spellings[0] != spellings[-1]:
        raise InputError(
            "config keys 'rope_parameters' and 'rope_theta'/'rope_scaling' disagree: "
            f"{tuple(spellings[0])} and {tuple(spellings[-1])}; keep one"
        )
    return spellings[0]


def write(rope: Rope) -> dict[str, Any]:
    """Both spellings: a reader that misses its own would silently fall back to 10000."""
    fields = scaling_fields(rope.scaling)
    partial = {} if rope.partial == 1.0 else {PARTIAL: rope.partial}
    return {
        "rope_theta": rope.theta,
        "rope_scaling": None if rope.scaling is None else fields,
        "rope_parameters": {"rope_theta": rope.theta, **fields, **partial},
        **partial,
    }


def scaling_fields(scaling: Scaling) -> dict[str, Any]:
    """The dict of a scaling, `rope_type` first."""
    match scaling:
        case None:
            return {"rope_type": "default"}
        case LinearScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case RopeScaling(factor, low, high, length):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": length,
            }
        case LongRope(short, long, length, attention):
            return {
                "rope_type": "longrope",
                "short_factor": list(short),
                "long_factor": list(long),
                "attention_factor": attention,
                "original_max_position_embeddings": length,
            }


def _rope(
    theta: float,
    fields: Mapping[str, Any],
    where: str,
    config: Mapping[str, Any],
    types: Collection[str],
) -> Rope:
    named = str(fields.get("rope_type", fields.get("type", "default")))
    kind = _OLD_NAMES.get(named, named)
    if kind not in types:
        raise InputError(
            f"config key {where!r} asks for rope type {named!r}; supported are {', '.join(types)}"
        )
    unknown = sorted(set(fields) - {"rope_type", "type", "rope_theta", PARTIAL, *_FIELDS[kind]})
    if unknown:
        raise InputError(f"config key {where!r} holds unknown keys for {kind!r}: {unknown}")
    partial = number(fields if PARTIAL in fields else config, PARTIAL, 1.0)
    return Rope(theta, _scaling(kind, fields, config), partial)


def _scaling(kind: str, fields: Mapping[str, Any], config: Mapping[str, Any]) -> Scaling:
    match kind:
        case "linear":
            return LinearScaling(number(fields, "factor"))
        case "llama3":
            return RopeScaling(
                factor=number(fields, "factor"),
                low_freq_factor=number(fields, "low_freq_factor"),
                high_freq_factor=number(fields, "high_freq_factor"),
                original_length=integer(fields, "original_max_position_embeddings"),
            )
        case "longrope":
            return _longrope(fields, config)
    return None


def _longrope(fields: Mapping[str, Any], config: Mapping[str, Any]) -> LongRope:
    # Phi-3 keeps the length beside the scaling, and transformers lets that one win.
    holder = config if "original_max_position_embeddings" in config else fields
    original = integer(holder, "original_max_position_embeddings")
    stretch = number(config, "max_position_embeddings") / original
    stretch = max(1.0, number(fields, "factor", stretch))
    recommended = math.sqrt(1 + math.log(stretch) / math.log(original))
    return LongRope(
        short=_factors(fields, "short_factor"),
        long=_factors(fields, "long_factor"),
        original_length=original,
        attention_factor=number(fields, "attention_factor", recommended),
    )


def _factors(fields: Mapping[str, Any], key: str) -> tuple[float, ...]:
    found = fields.get(key)
    if not isinstance(found, list) or not all(isinstance(x, int | float) and x > 0 for x in found):
        raise InputError(f"config key {key!r} is {found!r}; it must be a list of positive numbers")
    return tuple(float(x) for x in found)


def _require_dict(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise InputError(f"config key {key!r} is {value!r}; it must be an object or null")

"""Reading Hugging Face config dicts: every key is read, known to be neutral, or refused."""

from collections.abc import Collection, Mapping
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.models.config import RopeScaling

NEUTRAL = frozenset(
    {
        "_name_or_path",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "is_llama_config",
        "pad_token_id",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    }
)
"""Keys that never change what the model computes, in any family."""

ROPE_KEYS = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})
"""The old spelling (theta and scaling apart, transformers < 5) and the new (one dict)."""

_LLAMA3_KEYS = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)


def refuse_unknown(
    config: Mapping[str, Any], read: Collection[str], fixed: Mapping[str, tuple[Any, ...]]
) -> None:
    """Checks that every key of `config` is in `read`, neutral, or holds one of its `fixed` values.

    Raises:
      InputError: names the key, its value, and the values that are supported.
    """
    for key, value in config.items():
        if key in read or key in NEUTRAL:
            continue
        if key not in fixed:
            raise InputError(
                f"config key {key!r} (value {value!r}) is not known to this family; it may change "
                "what the model computes, so it is not ignored: remove it if it does not"
            )
        if not any(value == allowed for allowed in fixed[key]):
            allowed = " or ".join(repr(allowed) for allowed in fixed[key])
            raise InputError(f"config key {key!r} is {value!r}; only {allowed} is supported")


def integer(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The positive integer at `key`; `default` where the key is absent or null.

    Raises:
      InputError: no value and no default, or not a positive integer.
    """
    value = _present(config, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"config key {key!r} is {value!r}; it must be a positive integer")
    return value


def number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """The positive number at `key`, as a float; `default` where the key is absent or null.

    Raises:
      InputError: no value and no default, or not a positive finite number.
    """
    value = _present(config, key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"config key {key!r} is {value!r}; it must be a number")
    if not 0 < value < float("inf"):
        raise InputError(f"config key {key!r} is {value!r}; it must be positive and finite")
    return float(value)


def boolean(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """The boolean at `key`; `default` where the key is absent or null."""
    value = _present(config, key, default)
    if not isinstance(value, bool):
        raise InputError(f"config key {key!r} is {value!r}; it must be true or false")
    return value


def rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """The rope base and its scaling, from either spelling of the config.

    Example: `{"rope_theta": 5e5}` and `{"rope_parameters": {"rope_theta": 5e5, "rope_type":
    "default"}}` both give `(5e5, None)`. Where a file holds both spellings they must agree.

    Raises:
      InputError: an unknown rope type or key, or two spellings that disagree.
    """
    spellings = []
    new = config.get("rope_parameters")
    if new is not None:
        _require_dict("rope_parameters", new)
        rest = {key: value for key, value in new.items() if key != "rope_theta"}
        theta = number(new if "rope_theta" in new else config, "rope_theta", 10000.0)
        spellings.append((theta, _scaling(rest, "rope_parameters")))
    if new is None or "rope_theta" in config or config.get("rope_scaling") is not None:
        old = config.get("rope_scaling") or {}
        _require_dict("rope_scaling", old)
        spellings.append((number(config, "rope_theta", 10000.0), _scaling(old, "rope_scaling")))
    if spellings[0] != spellings[-1]:
        raise InputError(
            "config keys 'rope_parameters' and 'rope_theta'/'rope_scaling' disagree: "
            f"{spellings[0]} and {spellings[-1]}; keep one"
        )
    return spellings[0]


def rope_fields(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Both spellings of `rope`: a reader that misses its own would silently fall back to 10000."""
    if scaling is None:
        fields: dict[str, Any] = {"rope_type": "default"}
    else:
        fields = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_length,
        }
    return {
        "rope_theta": theta,
        "rope_scaling": None if scaling is None else fields,
        "rope_parameters": {"rope_theta": theta, **fields},
    }


def _scaling(fields: Mapping[str, Any], where: str) -> RopeScaling | None:
    kind = fields.get("rope_type", fields.get("type", "default"))
    known = {"default": (), "llama3": _LLAMA3_KEYS}
    if kind not in known:
        raise InputError(
            f"config key {where!r} asks for rope type {kind!r}; supported are default and llama3"
        )
    unknown = sorted(set(fields) - {"rope_type", "type", *known[kind]})
    if unknown:
        raise InputError(f"config key {where!r} holds unknown keys for {kind!r}: {unknown}")
    if kind == "default":
        return None
    return RopeScaling(
        factor=number(fields, "factor"),
        low_freq_factor=number(fields, "low_freq_factor"),
        high_freq_factor=number(fields, "high_freq_factor"),
        original_length=integer(fields, "original_max_position_embeddings"),
    )


def _present(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise InputError(f"config key {key!r} is missing")
    return value


def _require_dict(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise InputError(f"config key {key!r} is {value!r}; it must be an object or null")

"""Reading Hugging Face config dicts: every key is read, known to be neutral, or refused."""

from collections.abc import Collection, Mapping
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.models.config import DIMENSION_LABELS, RATING_LABELS, DecoderConfig

NEUTRAL = frozenset(
    {
        "_name_or_path",
        "auto_map",  # code on the hub, which is never run
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "max_sequence_length",  # Unsloth's, of its own loading; `max_position_embeddings` counts
        "pad_token_id",
        "problem_type",
        "torch_dtype",
        "unsloth_fixed",
        "unsloth_version",
        "transformers.js_config",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    }
)
"""Keys that never change what the model computes, in any family."""

SIZE_KEYS = frozenset(
    {
        "head_dim",
        "hidden_size",
        "id2label",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_labels",
        "rms_norm_eps",
        "tie_word_embeddings",
        "vocab_size",
    }
)
"""What `sizes` reads; `architectures` beside them says which head there is."""

LANGUAGE_MODEL = "ForCausalLM"
CLASSIFIER = "ForSequenceClassification"


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


def optional(config: Mapping[str, Any], key: str, default: float | None) -> float | None:
    """The positive number at `key`; null is None, and only an absent key is `default`."""
    return None if config.get(key, default) is None else number(config, key, default)


def count_field(config: Mapping[str, Any], key: str, default: int) -> int:
    """The integer at `key`, 0 included; `default` where the key is absent or null."""
    return 0 if config.get(key) == 0 else integer(config, key, default)


def boolean(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """The boolean at `key`; `default` where the key is absent or null."""
    value = _present(config, key, default)
    if not isinstance(value, bool):
        raise InputError(f"config key {key!r} is {value!r}; it must be true or false")
    return value


def sizes(
    config: Mapping[str, Any],
    *,
    max_length: int,
    norm_eps: float,
    tied: bool,
    kv_heads: int | None = None,
    head_dim: int | None = None,
) -> dict[str, Any]:
    """The fields of `DecoderConfig` that every family has, read from `SIZE_KEYS`.

    The arguments are the defaults of the family's config class in transformers; None for `kv_heads`
    is as many as heads, for `head_dim` the width divided by the heads.

    Raises:
      InputError: a missing or bad value, or sizes that do not fit together.
    """
    width, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    # Null means as many as heads; only an absent key takes the class's default.
    absent = heads if "num_key_value_heads" in config else (kv_heads or heads)
    kv_heads = integer(config, "num_key_value_heads", default=absent)
    if heads % kv_heads:
        raise InputError(
            f"config key 'num_attention_heads' ({heads}) must be a multiple of "
            f"'num_key_value_heads' ({kv_heads})"
        )
    head_dim = integer(config, "head_dim", default=head_dim or width // heads)
    if head_dim % 2:
        raise InputError(f"config key 'head_dim' is {head_dim}; rope needs an even head width")
    return {
        "vocab_size": integer(config, "vocab_size"),
        "width": width,
        "layers": integer(config, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_width": integer(config, "intermediate_size"),
        "max_length": integer(config, "max_position_embeddings", default=max_length),
        "norm_eps": number(config, "rms_norm_eps", default=norm_eps),
        "tied_head": boolean(config, "tie_word_embeddings", default=tied),
        **_score_head(config),
    }


def size_fields(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `sizes`: what every family writes, the head's kind included."""
    return {
        "attention_dropout": 0.0,
        "head_dim": config.head_dim,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_length,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
        "vocab_size": config.vocab_size,
        **(_labels(config.score_labels) if config.score_head else {}),
    }


def architectures(prefix: str) -> tuple[Any, ...]:
    """The values of `architectures` that a family has: a language model's, a classifier's, none."""
    return [prefix + LANGUAGE_MODEL], [prefix + CLASSIFIER], None


def architecture(prefix: str, config: DecoderConfig) -> list[str]:
    """The one of `architectures` that `config` is."""
    return [prefix + (CLASSIFIER if config.score_head else LANGUAGE_MODEL)]


def _labels(names: tuple[str, ...]) -> dict[str, Any]:
    numbered = {str(number): name for number, name in enumerate(names)}
    return {"id2label": numbered, "label2id": {name: int(at) for at, name in numbered.items()}}


def _score_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """Whether there is a score head, and what its outputs are: ratings, where they are called so.

    A single output of any other name is a reward.
    """
    if not str((config.get("architectures") or [""])[0]).endswith(CLASSIFIER):
        return {"score_head": False}
    given = config.get("id2label") or {}
    count = len(given) or config.get("num_labels", 2)
    names = tuple(str(given.get(str(number))) for number in range(len(given)))
    if names in (RATING_LABELS, DIMENSION_LABELS):
        return {"score_head": True, "score_labels": names}
    if count != 1:
        raise InputError(
            f"the classifier has {count} labels; only a reward head of 1 is supported, or one of "
            f"the ratings {', '.join(DIMENSION_LABELS)}"
        )
    return {"score_head": True}


def _present(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise InputError(f"config key {key!r} is missing")
    return value

"""Which layers have a sliding window: `layer_types` and the older ways to say it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.models.config import DecoderConfig
from hen_jax.models.families.hf_fields import integer

FULL, SLIDING = "full_attention", "sliding_attention"


class Window(NamedTuple):
    """The fields of `DecoderConfig` that say who sees how far."""

    window: int | None
    global_layers: tuple[int, ...]


def width(config: Mapping[str, Any], default: int | None) -> int | None:
    """`sliding_window`; null is none, and only an absent key is `default`."""
    if config.get("sliding_window", default) is None:
        return None
    return integer(config, "sliding_window", default)


def read_windows(
    config: Mapping[str, Any], window: int | None, is_global: Callable[[int], bool]
) -> Window:
    """The window and the layers that see past it; `is_global(layer)` where `layer_types` is absent.

    Raises:
      InputError: `layer_types` of another length, with an unknown type, or without a window.
    """
    layers = integer(config, "num_hidden_layers")
    types = config.get("layer_types")
    if types is None:
        if window is None:
            return Window(None, ())
        types = [FULL if is_global(layer) else SLIDING for layer in range(layers)]
    if len(types) != layers or set(types) - {FULL, SLIDING}:
        raise InputError(
            f"config key 'layer_types' is {types!r}; it must hold {FULL!r} or {SLIDING!r} for each "
            f"of the {layers} layers"
        )
    if SLIDING not in types:
        return Window(None, ())
    if window is None:
        raise InputError(f"config key 'layer_types' names {SLIDING!r} but there is no window")
    return Window(window, tuple(layer for layer, kind in enumerate(types) if kind == FULL))


def layer_types(config: DecoderConfig) -> list[str]:
    """The `layer_types` that `read_windows` turns into the config's windows."""
    return [FULL if window is None else SLIDING for window in config.windows]

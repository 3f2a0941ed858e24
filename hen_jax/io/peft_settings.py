"""PEFT's `adapter_config.json`: every key is written, and read, known to be neutral, or refused."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.records import shaped_record
from hen_jax.core.shapes import checked_shape, read_json_object, shown
from hen_jax.io.peft_targets import Targets, read_targets, searched
from hen_jax.models.config import SCORE_LABELS

FORMAT_VERSION = "0.21.2"
"""The PEFT release whose fields `PLAIN_SETTINGS` are."""

LANGUAGE_MODEL, CLASSIFIER = "CAUSAL_LM", "SEQ_CLS"
_TASKS = (LANGUAGE_MODEL, CLASSIFIER, "SEQ_2_SEQ_LM")  # the last: public adapters of decoders
_SCORE = "score"

LARGEST_RANK = 2**31 - 1
"""What a dimension of an array can be."""

PLAIN_SETTINGS: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "fan_in_fan_out": False,
    "kasa_config": None,
    "layer_replication": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_ga_config": None,
    "megatron_config": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "velora_config": None,
}
"""Settings that change what an adapter computes: written so, and refused when read otherwise."""

NEUTRAL_SETTINGS: dict[str, Any] = {
    "auto_mapping": None,
    "eva_config": None,  # how it was initialised, as `init_lora_weights` may say
    "inference_mode": True,
    "lora_dropout": 0.0,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "revision": None,
}
"""Settings without effect on a trained plain LoRA: written so, and any value is read."""

UNTARGETED: dict[str, Any] = {
    "exclude_modules": None,
    "layers_pattern": None,
    "layers_to_transform": None,
}
"""Settings that narrow the targets: written so, and read by `peft_targets`."""

OLD_SETTINGS: dict[str, Any] = {"enable_lora": None, "merge_weights": False}
"""Settings of early releases that newer ones do not write: read where they had no effect."""

_OF_TRAINING = {"lora_dtype", "lorap_emb_lr", "lorap_lr_ratio", "runtime_config"}
"""Settings of other tools and releases on how an adapter is trained: any value is read."""

_READ = {
    "alpha_pattern",
    "base_model_name_or_path",
    "init_lora_weights",
    "lora_alpha",
    "modules_to_save",
    "peft_version",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_rslora",
}

_HARMLESS_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Other initialisations (PiSSA, OLoRA, LoftQ, ...) change the base weights as well."""


class PeftSettings(NamedTuple):
    """What decides the rank and the factor of each module; patterns are PEFT's, of module names."""

    rank: int
    alpha: float
    rank_stabilised: bool = False
    ranks: Mapping[str, int] = {}
    alphas: Mapping[str, float] = {}
    targets: Targets = Targets()

    def rank_of(self, module: str) -> int:
        """The rank of a module, e.g. of `model.layers.3.self_attn.q_proj`."""
        return _matched(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """The factor on the module's low-rank product."""
        rank, alpha = self.rank_of(module), _matched(self.alphas, module, self.alpha)
        return alpha / (rank**0.5 if self.rank_stabilised else rank)


def fields(
    settings: PeftSettings, modules: list[str], base_model: str | None, classifier: bool
) -> dict[str, Any]:
    """The whole `adapter_config.json`; `modules` are the last names of what is adapted."""
    return dict(
        sorted(
            {
                **PLAIN_SETTINGS,
                **NEUTRAL_SETTINGS,
                **UNTARGETED,
                "alpha_pattern": {key: _whole(value) for key, value in settings.alphas.items()},
                "base_model_name_or_path": base_model,
                "init_lora_weights": True,
                # PEFT declares an integer and keeps what it reads, so a fraction survives too.
                "lora_alpha": _whole(settings.alpha),
                "modules_to_save": [_SCORE] if classifier else None,
                "peft_version": FORMAT_VERSION,
                "r": settings.rank,
                "rank_pattern": dict(settings.ranks),
                "target_modules": modules,
                "task_type": CLASSIFIER if classifier else LANGUAGE_MODEL,
                "use_rslora": settings.rank_stabilised,
            }.items()
        )
    )


def read_settings(path: Path) -> PeftSettings:
    """Reads `adapter_config.json`.

    Raises:
      InputError: a setting that low-rank adapters as we have them lack, or an unknown one that is
        neither null, false nor empty: what a later release does not use, it writes so.
    """
    found = read_json_object(path)
    # Other tools write an empty list, or false, where there is none.
    patterns = {key: found.get(key) or {} for key in ("rank_pattern", "alpha_pattern")}
    checked_shape(patterns, {"rank_pattern": {...: int}, "alpha_pattern": {...: float}}, path)
    for key, value in found.items():
        _check(path, key, value)
    rank, alpha = found.get("r"), found.get("lora_alpha")
    if (
        not isinstance(rank, int)
        or not isinstance(alpha, int | float)
        or not abs(alpha) <= sys.float_info.max  # NaN is refused, too
    ):
        raise InputError(
            f"{path}: 'r' is {shown(rank)} and 'lora_alpha' {shown(alpha)}; both must be numbers, "
            "and finite"
        )
    for one in (rank, *patterns["rank_pattern"].values()):
        if not 1 <= one <= LARGEST_RANK:
            raise InputError(f"{path}: a rank of {shown(one)}; allowed: 1 to {LARGEST_RANK:,}")
    return PeftSettings(
        rank,
        float(alpha),
        bool(found.get("use_rslora")),
        patterns["rank_pattern"],
        patterns["alpha_pattern"],
        read_targets(path, found),
    )


def _check(path: Path, key: str, value: Any) -> None:
    if key in PLAIN_SETTINGS | OLD_SETTINGS:
        plain = (PLAIN_SETTINGS | OLD_SETTINGS)[key]
        # Older releases write null where the newer write an empty table.
        if value != plain and not (value is None and plain in ({}, False)):
            raise InputError(
                f"{path}: {key!r} is {shown(value)}; only plain LoRA ({plain!r} here) is supported"
            )
    elif key == "init_lora_weights" and value not in _HARMLESS_INITS:
        raise InputError(
            f"{path}: 'init_lora_weights' is {shown(value)}, which changes the base weights; "
            "convert it with PEFT's path_initial_model_for_weight_conversion"
        )
    elif key == "modules_to_save" and value and not _is_head(value):
        raise InputError(
            f"{path}: 'modules_to_save' is {shown(value)}; only a score head is supported"
        )
    elif key == "task_type" and value not in (*_TASKS, None):
        raise InputError(f"{path}: 'task_type' is {shown(value)}; supported: {', '.join(_TASKS)}")
    elif key not in NEUTRAL_SETTINGS | UNTARGETED and key not in _READ | _OF_TRAINING and value:
        raise InputError(
            f"{path}: setting {shown(key)} ({shown(value)}) is not known; "
            "remove it if it has no effect"
        )


def _is_head(value: Any) -> bool:
    return isinstance(value, list) and all(one in (_SCORE, "classifier") for one in value)


def _matched(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """As PEFT matches: a pattern is a regular expression for the end of a module's name."""
    for pattern, value in patterns.items():
        if searched(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def adapter_labels(folder: Path) -> tuple[str, ...]:
    """What the outputs of an adapter's score head are; a score, where its record does not say."""
    record = shaped_record(folder, {"score_labels?": (None, [str])})
    return tuple(record.get("score_labels") or SCORE_LABELS)

"""`hen export`: a run's weights in Hugging Face or PEFT format, read back and compared."""

import dataclasses
from pathlib import Path
from typing import Literal

from hen_jax.adapters.lora import merge_adapter, merge_rounding
from hen_jax.core.errors import InputError
from hen_jax.core.folders import require_apart, require_replaceable
from hen_jax.core.links import real_path
from hen_jax.io import hf, peft
from hen_jax.io.cards import Card
from hen_jax.runs.card import export_card
from hen_jax.runs.earlier import previous_run
from hen_jax.runs.export.trained import (
    Exported,
    TrainedModel,
    checked,
    open_trained,
    probe_logits,
    require_finite_params,
)
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.origin import Origin, origin_of, public_id, without_paths
from hen_jax.text.chat import stop_ids

ExportFormat = Literal["hf", "peft"]

EXPORTS = "export"
"""The folder of a run that is free for its exports."""


def export(
    run: Path,
    out: Path,
    format_: ExportFormat,
    dtype: str | None = None,
    base_model: str | None = None,
    expert: str | None = None,
) -> Exported:
    """Writes the export, reads it back, and checks that it speaks as the run does.

    "hf" is a whole model, the adapter merged in float32 and rounded once; "peft" is the adapter.
    `dtype` None stores what the run held: a merged model as its base, one that trained whole in
    float32 even where its base was bfloat16. `base_model` is the hub id of the base, where its
    folder does not say it. Of a run of several experts `expert` names the one to write. No file of
    the export names a path of this machine.

    Raises:
      InputError: nothing to export, PEFT asked of a run without an adapter, an `out` that may not
        be replaced, or numbers that are not finite.
      RuntimeError: the reloaded weights do not give the run's logits; `out` is as it was.
    """
    if base_model is not None:
        public_id(base_model)
    require_replaceable(out, {"hf": hf.MODEL_KIND, "peft": peft.ADAPTER_KIND}[format_])
    require_apart_from_run(out, run)
    require_apart(out, previous_run(run).base)
    return export_trained(open_trained(run, expert), out, format_, dtype, base_model)


def export_trained(
    trained: TrainedModel,
    out: Path,
    format_: ExportFormat,
    dtype: str | None = None,
    base_model: str | None = None,
) -> Exported:
    """`export` of a run that is already open."""
    origin = base_origin(trained, out, base_model)
    if format_ == "peft":
        return _export_peft(trained, out, dtype, origin)
    return _export_hf(trained, out, dtype, origin)


def require_apart_from_run(out: Path, run: Path) -> None:
    """Within a run only its own folder `export` is free for exports."""
    if real_path(run / EXPORTS) not in real_path(out).parents:
        require_apart(out, run)


def _export_hf(trained: TrainedModel, out: Path, dtype: str | None, origin: Origin) -> Exported:
    model, lora = trained.model, trained.lora
    require_finite_params(trained)
    merged, rounding = trained.params, 0.0
    if lora is not None:
        merged = merge_adapter(model.base, trained.params, lora.scale)
        rounding = merge_rounding(model.base, trained.params, lora.scale)
    found: list[Exported] = []

    def check(folder: Path, dtype: str) -> None:
        reloaded = hf.read_params(folder, model.config)
        found.append(checked(trained, out, rounding, probe_logits(model, None, reloaded), dtype))

    hf.write_model(
        out,
        model.config,
        merged,
        source_folder=model.folder,
        stops=stop_ids(known_tokenizer(model.folder)),
        dtype=dtype,
        card=_card(trained, out, origin, "merge" if lora else "finetune"),
        record={
            "run": without_paths(trained.record),
            "largest_rounding": rounding,
            **trained.reports,
            # These weights have no public name yet; the rest is as of the base.
            "origin": dataclasses.asdict(
                dataclasses.replace(origin, base_model=None, revision=None)
            ),
        },
        check=check,
    )
    return found[0]


def _export_peft(trained: TrainedModel, out: Path, dtype: str | None, origin: Origin) -> Exported:
    model, lora = trained.model, trained.lora
    if lora is None:
        raise InputError("the run trained all parameters and has no adapter; use --format hf")
    require_finite_params(trained)
    found: list[Exported] = []

    def check(folder: Path, dtype: str) -> None:
        read_lora, adapter = peft.read_adapter(folder, model.config)
        found.append(checked(trained, out, 0.0, probe_logits(model, read_lora, adapter), dtype))

    peft.write_adapter(
        out,
        model.config,
        lora,
        trained.params,
        base_model=origin.base_model,
        source_folder=model.folder,
        stops=stop_ids(known_tokenizer(model.folder)),
        dtype=dtype,
        card=_card(trained, out, origin, "adapter"),
        record={
            "run": without_paths(trained.record),
            "origin": dataclasses.asdict(origin),
            **trained.reports,
        },
        check=check,
    )
    return found[0]


def _card(trained: TrainedModel, out: Path, origin: Origin, relation: str) -> Card:
    config, lora = trained.record["config"], trained.lora
    method = trained.record.get("method") or config.get(
        "recipe", "unknown"
    )  # older runs do not say it
    model = trained.model.config
    unit = "nats per prompt" if model.score_head else "nats per assistant token"
    if model.rates:
        unit = "squared error of ratings in [0, 1]"
    if "preference" in config:
        unit = f"{config['preference']['loss']} and its cross-entropy, if any, per prompt or mark"
    if "rewards" in config:
        unit = "(minus the mean reward of a reply)"
    return export_card(out.name, config, method, lora, origin, trained.held_out, relation, unit)


def base_origin(trained: TrainedModel, out: Path, base_model: str | None) -> Origin:
    """Of the base, under the name that it was given; says so where it has none."""
    origin = origin_of(trained.model.folder)
    if base_model is not None:
        return dataclasses.replace(origin, base_model=public_id(base_model), revision=None)
    if origin.base_model is None:
        print(
            f"{out}: the public name of the base model is not known, so the card names none and "
            "others will not find it; give --base-model OWNER/NAME"
        )
    return origin


def describe_export(exported: Exported) -> str:
    """One line for a log."""
    return (
        f"{exported.folder}: reloaded {exported.what} differ from the run's by "
        f"{exported.difference:.2g} and from the base's by {exported.change:.2g}; rounding of "
        f"merged weights {exported.rounding:.2g}"
    )

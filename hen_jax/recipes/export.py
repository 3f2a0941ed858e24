"""`hen export`: a run's weights in Hugging Face or PEFT format, read back and compared."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hen_jax.adapters.lora import merge_adapter, merge_rounding, zero_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.folders import require_apart, require_replaceable
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import flatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import hf, peft
from hen_jax.io.cards import Card
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.recipes import regression_report, reward_report
from hen_jax.runs.card import HeldOut, export_card, held_out_loss
from hen_jax.runs.earlier import (
    as_trained,
    beside,
    previous_run,
    saved_adapters,
    saved_params,
)
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import BaseModel, ModelSettings, base_dtype, open_model
from hen_jax.runs.origin import Origin, origin_of, public_id, without_paths
from hen_jax.runs.settings import settings
from hen_jax.text.chat import stop_ids
from hen_jax.training.checkpoints import saved_steps

ExportFormat = Literal["hf", "peft"]

EXPORTS = "export"
"""The folder of a run that is free for its exports."""

REPORTS = {"reward": reward_report.REPORT, "regression": regression_report.REPORT}
"""What says how much scores are worth, by its name in `hen_jax.json`: a reward model's calibration
by task travels with it so."""

DTYPE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1, "q8_0": 0.5}
"""How far reloaded logits may lie from the run's own, by the dtype the weights are stored in."""


class TrainedModel(NamedTuple):
    """What a run learnt, with the base it learnt on."""

    record: dict[str, Any]
    model: BaseModel
    lora: LoraConfig | None
    params: Tree  # the adapter, or all parameters
    held_out: HeldOut | None = None
    reports: Mapping[str, Any] = {}  # of a model with a score head: what its scores are worth


class Exported(NamedTuple):
    """An export and how its reload compares; logits differences are the largest absolute ones."""

    folder: Path
    rounding: float  # what storing merged kernels in their dtype changed
    difference: float  # reloaded against the run's own logits
    change: float  # reloaded against the base's logits
    what: str = "logits"  # "scores" of a reward model


def open_trained(run: Path, expert: str | None = None) -> TrainedModel:
    """The newest checkpoint of the run in folder `run`; of several experts the one of that name.

    Raises:
      InputError: no run there, no checkpoint, its base model is gone or another one, or no such
        expert, or none named where there are several.
    """
    record, lora, adapters, base = previous_run(run)
    if expert is not None or adapters:
        if expert is None or expert not in adapters:
            raise InputError(
                f"{run} trained {', '.join(adapters) or 'no experts'}; expert {expert!r} is none "
                f"of them: {'give --expert NAME' if adapters else 'leave --expert out'}"
            )
        lora = adapters[expert]
    if not base.is_dir():
        raise InputError(f"the base model of {run} is no longer at {base}; put it back there")
    held = base_dtype(settings(ModelSettings, record["config"]["model"]), lora)
    config = as_trained(run, hf.read_config(base))
    model = open_model(base, make_mesh(MeshConfig()), lora=lora, dtype=held, config=config)
    reports = {name: read_json(run / of) for name, of in REPORTS.items() if (run / of).exists()}
    params = (
        saved_params(run, model, lora)
        if expert is None
        else saved_adapters(run, model, {expert: adapters[expert]})[expert]
    )
    held_out = held_out_loss(run, saved_steps(run / "checkpoints")[0])
    return TrainedModel(record, model, lora, params, held_out, reports)


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
    if (run / EXPORTS).resolve() not in out.resolve().parents:
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


def require_finite_params(trained: TrainedModel) -> None:
    """Refuses what a run that went astray has left."""
    for path, leaf in flatten(trained.params).items():
        if not bool(jnp.isfinite(leaf).all()):
            raise InputError(
                f"the newest checkpoint of the run holds numbers in {path} that are not finite; "
                "train again with a lower config.optimizer.learning_rate"
            )


def checked(
    trained: TrainedModel, out: Path, rounding: float, reloaded: Float[Array, "B T V"], dtype: str
) -> Exported:
    """What a reload's logits say of an export. Raises `RuntimeError` where it is not the run's."""
    model, lora = trained.model, trained.lora
    ours, what = (
        probe_logits(model, lora, trained.params),
        "scores" if model.config.score_head else "logits",
    )
    still = model.base if lora is None else zero_adapter(trained.params)
    before = probe_logits(model, lora, still)
    for whose, logits in (("run", ours), ("base model", before)):
        if not bool(jnp.isfinite(logits).all()):
            raise InputError(f"the {what} of the {whose} are not finite; nothing was exported")
    difference, change = _distance(reloaded, ours), _distance(reloaded, before)
    if not difference <= DTYPE_TOLERANCE[dtype]:
        raise RuntimeError(
            f"the export gives other {what} than the run (by {difference:.3g}); {out} was not "
            "written. Please report this"
        )
    learnt = _distance(ours, before)
    if learnt > 2 * DTYPE_TOLERANCE[dtype] and change == 0:
        raise RuntimeError(f"the export changes nothing; {out} was not written. Please report this")
    return Exported(out, rounding, difference, change, what)


def _distance(left: Float[Array, "B T V"], right: Float[Array, "B T V"]) -> float:
    """The largest absolute difference; infinite where one is not finite, as NaN compares false."""
    apart = jnp.abs(left - right)
    return float(jnp.where(jnp.isfinite(apart), apart, jnp.inf).max())


def probe_logits(model: BaseModel, lora: LoraConfig | None, params: Tree) -> Float[Array, "B T V"]:
    """Logits of a few fixed tokens; `params` is an adapter over the base, or all parameters.

    Of a reward model its outputs at each position, `[B, T, O]`.
    """
    parts = split(abstract(model.config, lora, Execution(remat="none")))
    frozen = beside({}, model.base).frozen if lora is not None else {}
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 24))
    positions = np.tile(np.arange(24), (2, 1))

    @jax.jit
    def run(params: Tree, frozen: Tree) -> Float[Array, "B T V"]:
        decoder = merge(parts.graphdef, params, frozen)
        segments = np.ones_like(tokens)
        hidden = decoder.hidden(tokens, positions, segments)
        if decoder.score is not None:
            return decoder.score.outputs(hidden)
        return decoder.logits(hidden)

    return run(jax.tree.map(jnp.asarray, params), frozen)


def _card(trained: TrainedModel, out: Path, origin: Origin, relation: str) -> Card:
    config, lora = trained.record["config"], trained.lora
    method = trained.record.get("method", config["recipe"])  # older runs do not say it
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

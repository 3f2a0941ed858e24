"""`hen export`: a run's weights in Hugging Face or PEFT format, read back and compared."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hen_jax.adapters.lora import merge_adapter, merge_rounding, zero_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.types import Array, Tree
from hen_jax.io import hf, peft
from hen_jax.io.cards import Card
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.runs.earlier import earlier_run, saved_params
from hen_jax.runs.model import Opened, open_model

Format = Literal["hf", "peft"]

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"""How far reloaded logits may lie from the run's own, by the dtype the weights are stored in."""


class Trained(NamedTuple):
    """What a run learnt, with the base it learnt on."""

    record: dict[str, Any]
    model: Opened
    lora: LoraConfig | None
    params: Tree  # the adapter, or all parameters


class Exported(NamedTuple):
    """An export and how its reload compares; logits differences are the largest absolute ones."""

    folder: Path
    rounding: float  # what storing merged kernels in their dtype changed
    difference: float  # reloaded against the run's own logits
    change: float  # reloaded against the base's logits


def open_trained(run: Path) -> Trained:
    """The newest checkpoint of the run in folder `run`.

    Raises:
      InputError: no run there, no checkpoint, or its base model is gone.
    """
    record, lora, base = earlier_run(run)
    if not base.is_dir():
        raise InputError(f"the base model of {run} is no longer at {base}; put it back there")
    model = open_model(
        base, make_mesh(MeshConfig()), lora=lora, dtype=record["config"]["model"]["dtype"]
    )
    return Trained(record, model, lora, saved_params(run, model, lora))


def export(run: Path, out: Path, form: Format, dtype: str | None = None) -> Exported:
    """Writes the export, reads it back, and checks that it speaks as the run does.

    "hf" is a whole model, the adapter merged in float32 and rounded once; "peft" is the adapter.
    `dtype` None stores what the base is stored in.

    Raises:
      InputError: nothing to export, or PEFT asked of a run without an adapter.
      RuntimeError: the reloaded weights do not give the run's logits.
    """
    return export_trained(open_trained(run), out, form, dtype)


def export_trained(trained: Trained, out: Path, form: Format, dtype: str | None = None) -> Exported:
    """`export` of a run that is already open."""
    if form == "peft":
        return _export_peft(trained, out, dtype)
    return _export_hf(trained, out, dtype)


def _export_hf(trained: Trained, out: Path, dtype: str | None) -> Exported:
    model, lora = trained.model, trained.lora
    merged, rounding = trained.params, 0.0
    if lora is not None:
        merged = merge_adapter(model.base, trained.params, lora.scale)
        rounding = merge_rounding(model.base, trained.params, lora.scale)
    card = _card(trained, out, "merge" if lora else "finetune")
    written = hf.write_model(
        out,
        model.config,
        merged,
        source_folder=model.folder,
        dtype=dtype,
        card=card,
        record={"run": trained.record, "largest_rounding": rounding},
    )
    reloaded = hf.read_params(out, model.config)
    return _checked(trained, out, rounding, _logits(model, None, reloaded), written.dtype)


def _export_peft(trained: Trained, out: Path, dtype: str | None) -> Exported:
    model, lora = trained.model, trained.lora
    if lora is None:
        raise InputError("the run trained all parameters and has no adapter; use --format hf")
    written = peft.write_adapter(
        out,
        model.config,
        lora,
        trained.params,
        base_model=str(model.folder),
        dtype=dtype,
        card=_card(trained, out, "adapter"),
        record={"run": trained.record},
    )
    read_lora, adapter = peft.read_adapter(out, model.config)
    return _checked(trained, out, 0.0, _logits(model, read_lora, adapter), written.dtype)


def _checked(
    trained: Trained, out: Path, rounding: float, reloaded: Float[Array, "B T V"], dtype: str
) -> Exported:
    model, lora = trained.model, trained.lora
    ours = _logits(model, lora, trained.params)
    still = model.base if lora is None else zero_adapter(trained.params)
    before = _logits(model, lora, still)
    difference = float(jnp.abs(reloaded - ours).max())
    change = float(jnp.abs(reloaded - before).max())
    if difference > TOLERANCE[dtype]:
        raise RuntimeError(
            f"{out} was written but gives other logits than the run (by {difference:.3g}); "
            "please report this"
        )
    learnt = float(jnp.abs(ours - before).max())
    if learnt > 2 * TOLERANCE[dtype] and change == 0:
        raise RuntimeError(f"{out} was written but changes nothing; please report this")
    return Exported(out, rounding, difference, change)


def _logits(model: Opened, lora: LoraConfig | None, params: Tree) -> Float[Array, "B T V"]:
    """Logits of a few fixed tokens; `params` is an adapter over the base, or all parameters."""
    parts = split(abstract(model.config, lora, Execution(remat="none")))
    frozen = model.base if lora is not None else {}
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 24))
    positions = np.tile(np.arange(24), (2, 1))

    @jax.jit
    def run(params: Tree, frozen: Tree) -> Float[Array, "B T V"]:
        decoder = merge(parts.graphdef, params, frozen)
        return decoder.logits(decoder.hidden(tokens, positions, np.ones_like(tokens)))

    return run(jax.tree.map(jnp.asarray, params), frozen)


def _card(trained: Trained, out: Path, relation: str) -> Card:
    config = trained.record["config"]
    data = ", ".join(source["path"] for source in config["sources"])
    kind = "All parameters" if trained.lora is None else f"LoRA (rank {trained.lora.rank})"
    summary = (
        f"{kind} trained by {trained.record.get('method', config['recipe'])} with hen_jax on "
        f"{data}, learning rate {config['optimizer']['learning_rate']:g}."
    )
    front = {
        "base_model": str(trained.model.folder),
        "base_model_relation": relation,
        "datasets": [source["path"] for source in config["sources"]],
    }
    return Card(out.name, summary, front)


def describe(exported: Exported) -> str:
    """One line for a log."""
    return (
        f"{exported.folder}: reloaded logits differ from the run's by {exported.difference:.2g} "
        f"and from the base's by {exported.change:.2g}; rounding of merged weights "
        f"{exported.rounding:.2g}"
    )

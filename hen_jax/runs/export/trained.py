"""What a run learnt, opened again, and whether an export of it speaks as it does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hen_jax.adapters.lora import zero_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import flatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import hf
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.runs.card import HeldOut, held_out_loss
from hen_jax.runs.earlier import as_trained, beside, previous_run, saved_adapters, saved_params
from hen_jax.runs.model import BaseModel, ModelSettings, base_dtype, open_model
from hen_jax.runs.routing import FOLDER as ROUTER
from hen_jax.runs.settings import settings
from hen_jax.training.checkpoints import saved_steps

REPORTS = {"reward": "reward.json", "regression": "regression.json"}
"""What says how much scores are worth, by its name in `hen_jax.json`: a reward model's calibration
by task travels with it so."""

DTYPE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1, "q8_0": 0.5}
"""How far reloaded logits may lie from the run's own, by the dtype the weights are stored in.

Of logits up to 10; of larger ones as much more as these are, for so does rounding.
"""


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
    if (run / ROUTER).exists():
        raise InputError(f"{run} trained a router, which is used as it lies: {run / ROUTER}")
    if expert is not None or adapters:
        if expert is None or expert not in adapters:
            raise InputError(
                f"{run} trained {', '.join(adapters) or 'no experts'}; expert {expert!r} is none "
                f"of them: {'give --expert NAME' if adapters else 'leave --expert out'}"
            )
        lora = adapters[expert]
    if not base.is_dir():
        raise InputError(f"the base model of {run} is no longer at {base}; put it back there")
    held = base_dtype(
        settings(ModelSettings, record["config"].get("model"), f"{run / RECORD}: config.model"),
        lora,
    )
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
    allowed = tolerance(dtype, ours)
    if not difference <= allowed:
        raise RuntimeError(
            f"the export gives other {what} than the run (by {difference:.3g}); {out} was not "
            "written. Please report this"
        )
    learnt = _distance(ours, before)
    if learnt > 2 * allowed and change == 0:
        raise RuntimeError(f"the export changes nothing; {out} was not written. Please report this")
    return Exported(out, rounding, difference, change, what)


def tolerance(dtype: str, logits: Float[Array, "B T V"]) -> float:
    """How far reloaded logits may lie from these; see `DTYPE_TOLERANCE`."""
    return DTYPE_TOLERANCE[dtype] * max(1.0, float(jnp.abs(logits).max()) / 10)


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

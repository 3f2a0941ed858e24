"""Changes that make a stage smaller, for `hen plan` to try."""

import dataclasses
from collections.abc import Callable
from typing import Any

from hen_jax.models.config import LoraConfig
from hen_jax.planning.search import Change
from hen_jax.runs.stage import Stage

RowsOf = Callable[[Any], int]
"""`rows(settings)`: of a batch."""


def replaced(settings: Any, group: str, **fields: Any) -> Any:
    """The settings with fields of a group changed; None if that changes nothing."""
    before = vars(settings)[group]
    after = dataclasses.replace(before, **fields)
    return None if after == before else dataclasses.replace(settings, **{group: after})


def _remat(policy: str) -> Change:
    return Change(
        f"execution.remat={policy}", lambda settings: replaced(settings, "execution", remat=policy)
    )


def _microbatches(rows: RowsOf, times: int) -> Change:
    def edit(settings: Any) -> Any:
        microbatches = settings.microbatches * times
        if rows(settings) % microbatches:
            return None
        return dataclasses.replace(settings, microbatches=microbatches)

    return Change(f"{times} times the microbatches", edit)


def _chunked(settings: Any) -> Any:
    if settings.execution.attention != "xla":
        return None
    return replaced(settings, "execution", attention="chunked")


def _adapter(settings: Any) -> Any:
    if settings.adapter is not None:
        return None
    lora = LoraConfig(rank=16, alpha=32.0)
    model = dataclasses.replace(settings.model, dtype="bfloat16", trained_dtype="float32")
    return dataclasses.replace(settings, adapter=lora, model=model)


def _narrow(settings: Any) -> Any:
    if settings.adapter is not None:
        return None
    return replaced(settings, "model", dtype=None, trained_dtype="bfloat16")


def _int8(settings: Any) -> Any:
    if settings.adapter is None:
        return None
    return replaced(settings, "execution", base_dtype="int8")


GENTLE = (
    Change("execution.attention=chunked", _chunked),
    _remat("attention"),
    _remat("block"),
)
SHARDED = Change("mesh.fsdp=-1, mesh.data=1", lambda s: replaced(s, "mesh", data=1, fsdp=-1))
NARROW = Change("model.trained_dtype=bfloat16", _narrow)
"""For stages that can train so: stochastic rounding has no meta-gradient."""
HARSH = (
    Change("adapter.rank=16 instead of all parameters", _adapter),
    Change("execution.base_dtype=int8", _int8),
)


def changes_of(stage: Stage) -> tuple[Change, ...]:
    """What to try for a stage: smallest loss of speed, and then of meaning, first."""
    divided = () if stage.rows is None else [_microbatches(stage.rows, n) for n in (2, 4)]
    return (*GENTLE, *divided, SHARDED, *stage.changes, *HARSH)

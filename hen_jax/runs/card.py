"""What an export's model card says: base, licence, data, method, evaluation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.io.cards import Card
from hen_jax.models.config import LoraConfig
from hen_jax.runs.origin import Origin
from hen_jax.training.metrics import METRICS_FILE, read_metrics


class HeldOut(NamedTuple):
    """The loss of a run's first and last evaluation, in nats."""

    before: float
    after: float


def held_out_loss(run: Path, step: int) -> HeldOut | None:
    """What the run in that folder measured before its first update, and after update `step`.

    None where it has not measured one of the two, which is told in a line: a run that was stopped,
    or whose log was cut.

    Raises:
      InputError: the log is damaged.
    """
    lines = read_metrics(run) if (run / METRICS_FILE).exists() else []
    measured = {line["step"]: line for line in lines if line["kind"] == "eval"}
    if not {0, step} <= measured.keys():
        print(
            f"{run / METRICS_FILE} holds no evaluation of updates 0 and {step}; the card gives no "
            "loss"
        )
        return None
    losses = [measured[one].get("loss", "nothing was held out") for one in (0, step)]
    if any(isinstance(loss, str) for loss in losses):
        return None
    return HeldOut(*(math.nan if loss is None else float(loss) for loss in losses))


def export_card(
    name: str,
    config: Mapping[str, Any],
    method: str,
    lora: LoraConfig | None,
    origin: Origin,
    held_out: HeldOut | None,
    relation: str,
    unit: str = "nats per assistant token",
) -> Card:
    """The card of an export called `name`.

    Args:
      config: the run's, as its record holds it.
      method: how it trained, as its record says it.
      origin: of the base model.
      relation: the Hub's `base_model_relation`: "adapter", "merge" or "finetune".
      unit: of the held-out loss.
    """
    front = _front(origin)
    if origin.base_model is not None:
        front["base_model_relation"] = relation
    parts = [_trained(config, method, lora), _base(origin), _evaluation(held_out, unit)]
    return Card(name, "\n\n".join(part for part in parts if part), front)


def import_card(title: str, source: str, origin: Origin) -> Card:
    """The card of a model that `hen import` brought from `source`, which is no path."""
    text = f"Imported from `{source}`."
    if origin.quantised is not None:
        text += f" {_dequantised(origin)}"
    return Card(title, text, _front(origin))


def _front(origin: Origin) -> dict[str, object]:
    fields = {"license": origin.license, "base_model": origin.base_model}
    return {key: value for key, value in fields.items() if value is not None}


def _dequantised(origin: Origin) -> str:
    return (
        f"The weights were read from a {origin.quantised} GGUF file: they are its dequantised "
        "values, which differ from those of the unquantised model."
    )


def _trained(config: Mapping[str, Any], method: str, lora: LoraConfig | None) -> str:
    data = ", ".join(_data(source["path"]) for source in config["sources"])
    kind = "All parameters" if lora is None else f"LoRA (rank {lora.rank})"
    return (
        f"{kind} trained by {method} with hen_jax on {data}, learning rate "
        f"{config['optimizer']['learning_rate']:g}."
    )


def _data(path: str) -> str:
    return f"`{path if path.startswith('shipped:') else Path(path).name}`"


def _base(origin: Origin) -> str:
    base = "not named" if origin.base_model is None else f"`{origin.base_model}`"
    if origin.revision is not None:
        base += f" at revision `{origin.revision}`"
    text = f"Base model: {base}."
    if origin.quantised is not None:
        text += f" {_dequantised(origin)}"
    if origin.license is None:
        return f"{text} The base model's licence applies; it was not recorded."
    return f"{text} Its licence, {origin.license}, applies."


def _evaluation(held_out: HeldOut | None, unit: str) -> str:
    if held_out is None:
        return ""
    return (
        f"Held-out loss of the run's own evaluation: {held_out.before:.4f} {unit} before training, "
        f"{held_out.after:.4f} after."
    )

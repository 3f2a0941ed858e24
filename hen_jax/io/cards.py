"""The README.md that travels with exported weights: YAML front matter and a few honest lines."""

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model card says beyond what the weights themselves tell.

    `front` holds extra front-matter fields of the Hub's model-card metadata, values of JSON types:
    `license`, `datasets`, `language`, `base_model`, `model-index`, ...
    """

    title: str
    summary: str
    front: dict[str, object] = dataclasses.field(default_factory=dict)


def write_card(
    folder: Path, card: Card, library: str, tags: list[str], usage: str, scores: bool = False
) -> None:
    """Writes `README.md`; `scores` says that it is a reward model.

    JSON values are valid YAML, so no YAML writer is needed.
    """
    fields = {
        "library_name": library,
        "pipeline_tag": "text-classification" if scores else "text-generation",
        "tags": ["hen_jax", *tags],
        **card.front,
    }
    front = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    lines = ["---", *front, "---", "", f"# {card.title}", "", card.summary, ""]
    lines += ["## Use", "", "```python", usage.strip(), "```", ""]
    lines += ["Written by hen_jax; `hen_jax.json` records how.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")

"""`docs/settings.md`, written from the settings themselves: `make docs`."""

import inspect
from collections.abc import Iterable

from hen_jax.core.fields import REQUIRED, Field, fields_of, may_be_none, words
from hen_jax.recipes.table import STAGES, stage_of
from hen_jax.runs.sources import Source
from hen_jax.verbs.pipeline.settings import PipelineSettings, PipelineStep, Suites

_HEAD = """\
# Settings

*Written from the code by `make docs`; a test compares the two.*

A config is a Python file with a function `get_config` that returns a `ConfigDict`. Those that come
with the package have names (`hen config` lists them, `hen config sft:tiny` shows one):

```
hen run --config=sft:tiny --workdir=runs/tiny
hen run --config=sft:tiny --workdir=runs/tiny --print-config    # every field, and nothing is run
hen run --config=mine.py --workdir=runs/mine
```

Every field below can be set on the command line, whether the file spells it out or not:
`--config.optimizer.weight_decay=0.1`, `--config.sources[0].path=mine.jsonl`,
`--config.adapter.rank=8` where the file says `adapter = None`. A field that does not exist, a value
of the wrong type or out of range is refused before anything is read.

A file of your own names its variants in the type of its argument; others are refused:

```python
from typing import Literal

from ml_collections import ConfigDict


def get_config(variant: Literal["large", "small"] = "large") -> ConfigDict:
    return ConfigDict(
        {
            "recipe": "sft",
            "model": {"source": "smollm2-135m" if variant == "large" else "tiny"},
            "sources": ({"schema": "messages", "path": "mine.jsonl"},),
            "optimizer": {"learning_rate": 1e-3},
            "epochs": 1.0,
        }
    )
```

A number must fit 32 bits: whole numbers up to 2147483647, others up to 3.4e38, no NaN.
"""

TABLE = ("| field | type | default | meaning |", "|---|---|---|---|")


def page() -> str:
    """The whole page: a table per recipe, then one per group of fields."""
    parts, groups = [_HEAD], {}
    by_record: dict[type, list[str]] = {}
    for name in STAGES:
        by_record.setdefault(stage_of(name).settings, []).append(name)
    for record, names in by_record.items():
        fields = list(fields_of([record]))
        told = " and ".join(f"`{name}`" for name in names)
        parts += [f"## Recipe {told}", _about(record), _table(f for f in fields if _is_top(f))]
        for field in fields:
            if field.group is not None:
                groups.setdefault((field.path, field.group), []).extend(names)
    for (path, group), names in groups.items():
        of = "" if len(names) == len(STAGES) else f" (of {', '.join(names)})"
        parts += [f"## `{path}`{of}", _about(group), _table(fields_of([group], f"{path}."))]
    parts += ["## An item of `sources`", _about(Source), _table(fields_of([Source], "sources[0]."))]
    parts += _pipeline()
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _pipeline() -> list[str]:
    """Of the recipe that is no stage."""
    fields = list(fields_of([PipelineSettings]))
    return [
        "## Recipe `pipeline`",
        _about(PipelineSettings),
        _table(field for field in fields if _is_top(field)),
        "## An item of `stages` (of pipeline)",
        _about(PipelineStep),
        _table(fields_of([PipelineStep], "stages[0].")),
        "## `suites` (of pipeline)",
        _about(Suites),
        _table(fields_of([Suites], "suites.")),
    ]


def _is_top(field: Field) -> bool:
    return "." not in field.path


def _about(record: type) -> str:
    """The docstring of a dataclass, without what it raises."""
    return (inspect.getdoc(record) or "").split("\n\nRaises:")[0]


def _table(fields: Iterable[Field]) -> str:
    rows = [
        f"| `{field.path}` | {_type(field)} | {_default(field)} | {_cell(field.meaning)} |"
        for field in fields
    ]
    return "\n".join([*TABLE, *rows])


def _type(field: Field) -> str:
    if field.group is None:
        return _cell(words(field.hint))
    return "a group of fields, below" + ("; or None" if may_be_none(field.hint) else "")


def _default(field: Field) -> str:
    if field.default is REQUIRED:
        return "required"
    return "its defaults" if field.group and field.default is not None else f"`{field.default!r}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")

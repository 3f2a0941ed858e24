"""`hen config` and `hen run --print-config`: every field of a config, and the built-in configs."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from hen_jax.core.fields import REQUIRED, Field, fields_of, words
from hen_jax.runs.config_files import built_in, find_config, open_config
from hen_jax.runs.settings import settings
from hen_jax.verbs.run.launch import load_config, settings_of


def show_config(config_file: str, overrides: Sequence[str]) -> str:
    """Every field as a run would use it, one a line, with type, default and meaning; printed too.

    Raises:
      InputError: what `hen run` would refuse before it looks for devices.
    """
    config = load_config(config_file, overrides)
    parsed = settings(settings_of(config.get("recipe")), config)
    lines = [f"# {config_file}; set any field with --config.FIELD=VALUE", *_lines([parsed])]
    print("\n".join(lines))
    return "\n".join(lines)


def list_configs() -> str:
    """The built-in configs with their variants and first lines; printed too."""
    lines = []
    for name in built_in():
        opened = open_config(find_config(name))
        lines.append(f"{name:12} {', '.join(opened.variants)}")
        lines.append(f"{'':12} {opened.doc.splitlines()[0]}")
    lines.append(
        "\nhen config NAME:VARIANT lists every field; hen run --config=NAME:VARIANT runs it"
    )
    print("\n".join(lines))
    return "\n".join(lines)


def _lines(parsed: Sequence[Any]) -> Iterator[str]:
    """One line per field: `loop.skip_limit = 10  # a whole number, 1 or more; ...`."""
    for field in fields_of([type(one) for one in parsed]):
        value = _value(parsed, field.path)
        if field.group is not None and value is not None:
            continue  # its fields follow
        if value is REQUIRED:
            yield f"{'':2}{field.path:38} # {_told(field)}"
        else:
            yield f"{f'{field.path} = {value!r}':40} # {_told(field)}"


def _value(parsed: Sequence[Any], path: str) -> Any:
    """The value of a field; `REQUIRED` where the group that has it is None."""
    first, *rest = path.split(".")
    (value,) = (vars(one)[first] for one in parsed if first in vars(one))
    for key in rest:
        if value is None:
            return REQUIRED
        value = vars(value)[key]
    if isinstance(value, tuple):  # of records, as they are written in a config
        return tuple(dataclasses.asdict(one) if _is_record(one) else one for one in value)
    return value


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _told(field: Field) -> str:
    default = "" if field.default is REQUIRED or field.group else f"; default {field.default!r}"
    meaning = f"; {field.meaning}" if field.meaning else ""
    return f"{words(field.hint)}{default}{meaning}"

"""Where a model comes from, as the public knows it: never a path of one machine."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hen_jax.core.errors import InputError
from hen_jax.core.records import read_record

if TYPE_CHECKING:
    from gguf import GGUFReader

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
"""`OWNER/NAME`, or `OWNER/NAME@REVISION`."""

_URL = re.compile(r"https?://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?")
_URL_FIELDS = ("general.repo_url", "general.source.repo_url", "general.source.url")
_WHOLE = ("F32", "F16", "BF16", "F64")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a model folder's record says of its source; None is not known, or does not apply."""

    base_model: str | None = None  # hub id under which these weights are public
    revision: str | None = None
    quantised: str | None = None  # the kind of blocks that its weights were dequantised from
    license: str | None = None


def origin_of(folder: Path) -> Origin:
    """The origin that was recorded when the folder was imported; else only its card's licence."""
    record = read_record(folder) or {}
    fields = record.get("origin")
    known = {field.name for field in dataclasses.fields(Origin)}
    if isinstance(fields, Mapping):
        return Origin(**{name: value for name, value in fields.items() if name in known})
    return Origin(license=card_license(folder))


def gguf_origin(reader: "GGUFReader", base_model: str | None = None) -> Origin:
    """What a GGUF file says of itself; `base_model` where it is known already."""
    from hen_jax.io.gguf import field  # here, as in `runs.import_model`

    kinds: Counter[str] = Counter()
    for tensor in reader.tensors:
        kinds[tensor.tensor_type.name] += int(tensor.n_elements)
    packed = [kind for kind, _ in kinds.most_common() if kind not in _WHOLE]
    named = (str(field(reader, key) or "") for key in _URL_FIELDS)
    urls = [found[1] for url in named if (found := _URL.fullmatch(url))]
    return Origin(
        base_model=base_model or next(iter(urls), None),
        quantised=packed[0] if packed else None,
        license=field(reader, "general.license"),
    )


def hub_origin(source: str, folder: Path) -> Origin:
    """Of `OWNER/NAME@REVISION`, fetched into `folder`."""
    repository, _, revision = source.partition("@")
    return Origin(repository, revision or None, license=card_license(folder))


def card_license(folder: Path) -> str | None:
    """The `license` of a model card's front matter."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    front = path.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    found = re.search(r"^license:[ \t]*[\"']?([\w.+-]+)", front, re.MULTILINE)
    return found[1] if front.startswith("---") and found else None


def public_id(name: str) -> str:
    """`name` as the hub id of a base model.

    Raises:
      InputError: it is none, or a folder here: its path would say nothing to others.
    """
    if Path(name).exists() or not HUB_ID.fullmatch(name):
        raise InputError(f"--base-model is {name!r}; give a public id OWNER/NAME, not a path")
    return name


def without_paths(value: Any) -> Any:
    """A record for others to read: of each path of this machine only the last part."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~", "./", "../")):
        return Path(value).name
    return value

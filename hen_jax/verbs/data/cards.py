"""What a pipeline trains on, counted: data files by record and part, base models by licence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hen_jax.data.cache import file_fingerprint
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.data.splits import split_records
from hen_jax.runs.model import TEXT_FILES, WEIGHT_FILES, ModelSettings, ensure_model, fingerprint
from hen_jax.runs.origin import origin_of
from hen_jax.runs.sources import SHIPPED, locate_source


class Used(NamedTuple):
    """A data source, and a stage that reads it."""

    source: Mapping[str, Any]  # schema, path, columns
    stage: str


def data_cards(used: Sequence[Used]) -> list[dict[str, Any]]:
    """One card for each file, under each schema it is read by.

    Raises:
      InputError: a bad record, or no such file.
    """
    by_file: dict[tuple[str, str], list[Used]] = {}
    for one in used:
        by_file.setdefault((one.source["path"], one.source["schema"]), []).append(one)
    return [_card(found) for found in by_file.values()]


def _card(used: Sequence[Used]) -> dict[str, Any]:
    source = used[0].source
    path, schema = source["path"], schema_named(source["schema"])
    columns = {k: v for k, v in (source.get("columns") or {}).items() if v is not None}
    file = locate_source(path)
    records = check_records(file, source["schema"], columns).whole(file)
    documents = [schema.document(record) for record in records]
    parts = split_records(documents, lambda one: one.group)
    return {
        "path": path,
        "schema": source["schema"],
        "sha256": file_fingerprint(file),
        "records": len(records),
        "groups": len({one.group for one in documents}),
        "parts": {name: len(part) for name, part in parts._asdict().items()},
        "labels": _labels([schema.labels(record) for record in records]),
        "origin": SYNTHETIC if path.startswith(SHIPPED) else NOT_RECORDED,
        "stages": list(dict.fromkeys(one.stage for one in used)),
    }


SYNTHETIC = (
    "Written for hen_jax by a language model, CC0-1.0, reviewed by nobody; too small and too much "
    "of one voice to support a claim about empathy."
)
NOT_RECORDED = "Origin, consent and licence are not recorded here; whoever trains on it knows them."


def _labels(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: dict(Counter(row.get(name, "none") for row in rows)) for name in names}


def model_card(model: ModelSettings) -> dict[str, Any]:
    """The base model, which is fetched if need be."""
    folder = ensure_model(model)
    origin = origin_of(folder)
    return {
        "source": model.source,
        "public_name": origin.base_model,
        "license": origin.license,
        "weights_sha256": fingerprint(folder, WEIGHT_FILES),
        "tokenizer_sha256": fingerprint(folder, TEXT_FILES),
    }

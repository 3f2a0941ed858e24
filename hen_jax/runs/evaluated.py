"""Which items an evaluation answers: data files, one part of them, so many of each task."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from hen_jax.core.errors import InputError
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.data.splits import Part, part_of
from hen_jax.empathy.labels import LANGUAGES, Language
from hen_jax.evaluation.reply_rules import is_chinese
from hen_jax.evaluation.suite import Item
from hen_jax.runs.sources import locate_source

_PARTS = (*get_args(Part), "all")


def read_arm_items(
    files: Sequence[str],
    schema: str,
    *,
    part: str = "test",
    languages: Sequence[Language] = LANGUAGES,
    limit: int = 0,
) -> list[Item]:
    """The items of the files, in their order; a conversation that ends with a reply gives it as the
    reference.

    Args:
      part: of the groups, as runs deal them (`data.splits`); "all" takes every record.
      limit: items of each language and task at most, spread evenly over them; 0: all.

    Raises:
      InputError: a bad record (file:line:field), two items of one id, or no item.
    """
    if part not in _PARTS:
        raise InputError(f"--part {part!r}; allowed: {', '.join(_PARTS)}")
    items = [item for file in files for item in _items(file, schema)]
    _require_ids(items)
    kept = [
        item
        for item in items
        if item.language in languages and part in ("all", part_of(item.cluster))
    ]
    if not kept:
        raise InputError(
            f"none of {len(items)} records in {', '.join(files)} is in the {part} part and in "
            f"{' or '.join(languages)}; give another --part, such as all, or another file"
        )
    return _limited(kept, limit) if limit else kept


def _items(file: str, name: str) -> list[Item]:
    schema, path = schema_named(name), locate_source(file)
    found = []
    for record in check_records(path, name).whole(path):
        document, labels = schema.document(record), schema.labels(record)
        said, reference = document.conversation.messages, None
        if said[-1].role == "assistant":
            said, reference = said[:-1], said[-1].content
        if not said or said[-1].role != "user":
            raise InputError(f"{path}: record {document.id} has nothing that waits for a reply")
        task = labels.get("context") or labels.get("task") or labels.get("crossing") or ""
        language = _language(labels, said[-1].content)
        found.append(Item(document.id, document.group, said, reference, language, task, labels))
    return found


def _language(labels: Any, text: str) -> Language:
    """As the record says, or by its letters."""
    if labels.get("language") in LANGUAGES:
        return labels["language"]
    letters = [letter for letter in text if letter.isalpha()]
    chinese: Literal["zh"] = "zh"
    return chinese if 2 * sum(map(is_chinese, letters)) > len(letters) else "en"


def _require_ids(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InputError(f"two records are called {item.id!r}; give each an id of its own")
        seen.add(item.id)


def _limited(items: Sequence[Item], limit: int) -> list[Item]:
    groups: dict[tuple[str, str], list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault((item.language, item.task), []).append(place)
    chosen = [
        own[at * len(own) // min(limit, len(own))]
        for own in groups.values()
        for at in range(min(limit, len(own)))
    ]
    return [items[place] for place in sorted(chosen)]

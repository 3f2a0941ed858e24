"""The groups of items that a figure is given for: each language, and each task within it."""

import json
from collections.abc import Mapping, Sequence

from hen_jax.core.checksums import text_sha256
from hen_jax.evaluation.suite import Item, Observed
from hen_jax.text.conversation import Message, message_row


def groups_of(items: Sequence[Item]) -> dict[str, list[int]]:
    """Places of the items of each group: `en`, and `en/SER`, `en/SPER`, ... if there are several.

    Languages and tasks come in the order in which they stand in the data.
    """
    found: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item.language, []).append(place)
    for language, places in list(found.items()):
        tasks = dict.fromkeys(items[place].task for place in places)
        if len(tasks) > 1:
            for task in tasks:
                own = [place for place in places if items[place].task == task]
                found[f"{language}/{task or 'other'}"] = own
    return found


def in_groups(observed: Observed, items: Sequence[Item]) -> list[Observed]:
    """An observation of all items as one of each group; its own group goes."""
    return [
        observed._replace(
            group=group,
            ids=[items[place].id for place in places],
            clusters=[items[place].cluster for place in places],
            values=observed.values[places],
        )
        for group, places in groups_of(items).items()
    ]


def prompts_hash(prompts: Sequence[Sequence[Message]]) -> str:
    """A name for what was asked: 16 hexadecimal digits of a SHA-256 over all prompts, in order."""
    rows = [[message_row(message) for message in prompt] for prompt in prompts]
    return text_sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False))[:16]


def by_id(items: Sequence[Item]) -> Mapping[str, Item]:
    """The items by their ids."""
    return {item.id: item for item in items}

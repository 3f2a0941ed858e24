"""Train, valid and test parts that no group straddles and no later record moves."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

_Record = TypeVar("_Record")
Part = Literal["train", "valid", "test"]

PART_OF_TENTH: dict[int, Part] = {8: "valid", 9: "test"}
"""The tenths of the hash range that do not train."""

SALT = "split-1"
"""Chosen because the shipped sets come out near 8/1/1 under it, in every context.

Another salt deals all groups anew: results before and after must not be compared.
"""


class Splits(NamedTuple, Generic[_Record]):
    """The records of each part, in their order."""

    train: list[_Record]
    valid: list[_Record]
    test: list[_Record]


def part_of(group: str, salt: str = SALT) -> Part:
    """The part of a group: 8 in 10 train, 1 valid, 1 test, by a hash of its name.

    It depends on the name alone, so adding, removing or reordering records moves no other group
    and two files that share a group agree. The price is that shares of a small set only come
    close to 8/1/1.
    """
    return PART_OF_TENTH.get(part_number(group, 10, salt), "train")


def part_number(group: str, parts: int, salt: str) -> int:
    """Which of `parts` equal shares of the hash range a group's name falls into, from 0."""
    digest = hashlib.sha256(f"{salt}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8]) * parts >> 64


def why_empty(part: str, groups: Mapping[str, int]) -> str:
    """Why no record is in a part, by how many each group has."""
    name, size = max(groups.items(), key=lambda group: group[1])
    shown = ascii(name if len(name) <= 40 else f"{name[:37]}...")
    return (
        f"the {part} part is empty: {sum(groups.values())} records in {len(groups)} groups, the "
        f"largest {shown} with {size}; groups are never parted (without a column `group`, "
        "conversations that begin with the same words are one): give the rows more groups, or add "
        "data"
    )


def split_records(
    records: Iterable[_Record], group: Callable[[_Record], str], salt: str = SALT
) -> Splits[_Record]:
    """`records` dealt to their parts: `split_records(records, lambda r: r.statement_id)`."""
    splits: Splits[_Record] = Splits([], [], [])
    part_records = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    for record in records:
        part_records[part_of(group(record), salt)].append(record)
    return splits

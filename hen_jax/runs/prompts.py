"""Which prompts a policy answers: settings -> prompts of each part, and batches of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.data.examples import Document
from hen_jax.data.pipeline import Batches, PipelineConfig, local_size
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.data.splits import Splits, split_records
from hen_jax.runs.sources import Source, locate_source
from hen_jax.text.chat import render_prompt
from hen_jax.text.conversation import Message
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.processes import Share

if TYPE_CHECKING:
    import grain


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """How prompts become batches."""

    prompt_length: Count = 512  # tokens of a prompt at most; longer ones are left out, and counted
    batch_size: Count = 8  # prompts of one rollout over all processes
    held_out: Count = 32  # prompts of one evaluation at most
    seed: Natural = 0  # of the shuffle

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """What is to be answered; a record without its last reply."""

    messages: tuple[Message, ...]
    tokens: np.ndarray  # [p] int32, ending with the header of the assistant's turn
    record: dict[str, str]  # id, group, the record's labels, and its reply as "reference"

    @property
    def id(self) -> str:
        """The name that errors and logs call it."""
        return self.record["id"]


class AskedPrompts(NamedTuple):
    """The prompts of one rollout on this process; None is a row of padding."""

    number: int  # of the rollout, from 0
    prompts: Sequence[Prompt | None]
    evaluating: bool = False
    following: Sequence[Prompt | None] | None = None  # those of the next rollout, if it is known


class PromptParts(NamedTuple):
    """The prompts of the parts that a run uses."""

    train: list[Prompt]
    valid: list[Prompt]


def prompt_parts(
    sources: tuple[Source, ...], config: PromptConfig, tokenizer: ChatTokenizer
) -> PromptParts:
    """The sources' prompts, dealt to train and valid by their group, rendered; each once.

    Tells how many were left out as too long. The held-out ones are spread evenly over their part.

    Raises:
      InputError: no source, a bad record (file:line:field), or a part without a prompt.
    """
    if not sources:
        raise InputError("config.sources is empty; name at least one data file")
    dealt = split_records(
        [one for source in sources for one in _records(source)], lambda one: one[0].group
    )
    parts = (_rendered(name, found, config, tokenizer) for name, found in _used(dealt))
    train, valid = parts
    count = min(config.held_out, len(valid))
    return PromptParts(train, [valid[at * len(valid) // count] for at in range(count)])


def _used(dealt: Splits[Any]) -> Iterator[tuple[str, list[Any]]]:
    yield from (("train", list(dealt.train)), ("valid", list(dealt.valid)))


def _records(source: Source) -> Iterator[tuple[Document, dict[str, str]]]:
    schema, path = schema_named(source.schema), locate_source(source.path)
    for record in check_records(path, source.schema, source.columns.given()).whole(path):
        document = schema.document(record)
        yield document, {"id": document.id, "group": document.group, **schema.labels(record)}


def _rendered(
    name: str,
    found: Sequence[tuple[Document, dict[str, str]]],
    config: PromptConfig,
    tokenizer: ChatTokenizer,
) -> list[Prompt]:
    asked: dict[tuple[Message, ...], dict[str, str]] = {}
    for document, record in found:
        messages = document.conversation.messages
        if messages[-1].role == "assistant":
            record, messages = record | {"reference": messages[-1].content}, messages[:-1]
        if messages:
            asked.setdefault(messages, record)
    prompts = [
        Prompt(messages, render_prompt(messages, tokenizer), record)
        for messages, record in asked.items()
    ]
    kept = [one for one in prompts if len(one.tokens) <= config.prompt_length]
    print(
        f"{name}: {len(kept)} prompts; {len(prompts) - len(kept)} left out as longer than "
        f"data.prompt_length {config.prompt_length}"
    )
    if not kept:
        longest = max((len(one.tokens) for one in prompts), default=0)
        what = f"its {len(prompts)} prompts have up to {longest} tokens, all more than"
        raise InputError(
            f"the {name} part holds no prompt to answer: {what} config.data.prompt_length "
            f"{config.prompt_length}; raise it"
            if prompts
            else f"the {name} part of config.sources holds no prompt; give files with more groups"
        )
    return kept


def train_prompts(prompts: Sequence[Prompt], config: PromptConfig, share: Share) -> Batches:
    """An endless iterator over this process's prompts of each rollout; it knows its place.

    Each comes with those of the next rollout, so that sampling may run ahead by one.
    """
    ahead = PipelineConfig(batch_size=config.batch_size, prefetch=2)
    local = local_size(ahead, share.index, share.count)
    rows = _endless(prompts, config).batch(local, drop_remainder=True, batch_fn=list)
    mine = rows[share.index :: share.count]

    def asked(number: int, found: list[Prompt]) -> AskedPrompts:
        return AskedPrompts(number, found, following=mine[number + 1])

    return Batches(mine.map_with_index(asked), ahead)


def asked_ids(prompts: Sequence[Prompt], config: PromptConfig, number: int) -> list[str]:
    """The ids of the prompts of rollout `number`, from 0, of `train_prompts`."""
    rows = _endless(prompts, config)
    places = range(number * config.batch_size, (number + 1) * config.batch_size)
    return [one.id for one in (rows[place] for place in places) if one is not None]


def held_out_batches(
    prompts: Sequence[Prompt], config: PromptConfig, share: Share
) -> Iterator[AskedPrompts]:
    """Every prompt once, in order, then padding up to a whole batch: a process's part."""
    ahead = PipelineConfig(batch_size=config.batch_size)
    local = local_size(ahead, share.index, share.count)
    whole = -(-len(prompts) // config.batch_size) * config.batch_size
    for number, start in enumerate(range(share.index * local, whole, config.batch_size)):
        rows: list[Prompt | None] = [*prompts[start : start + local]]
        yield AskedPrompts(number, rows + [None] * (local - len(rows)), evaluating=True)


def _endless(prompts: Sequence[Prompt], config: PromptConfig) -> "grain.MapDataset[Prompt]":
    # Imported here: grain itself imports jax.
    import grain

    return grain.MapDataset.source(prompts).seed(config.seed).shuffle().repeat()

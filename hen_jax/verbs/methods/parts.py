"""What methods need, from the flags of `hen prompt`, `hen compare` and `hen ablate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Range, require_in
from hen_jax.methods.definitions import read_definitions
from hen_jax.methods.emotion_models import (
    EmotionModel,
    lexicon_in_labels,
    lexicon_model,
    read_lexicon,
)
from hen_jax.methods.identified_emotions import identified_emotions
from hen_jax.methods.identifier_training import load_identifier
from hen_jax.methods.table import METHOD_LABELS, Parts
from hen_jax.methods.tooled import ToolLimits
from hen_jax.methods.tools import Tool, faq_tool, knowledge_tool

_SECONDS = Range(0, 86_400, above=True)


def parts_of(flags: Mapping[str, Any]) -> Parts:
    """The parts that the flags name.

    Raises:
      InputError: a file or folder that is none of its kind, or flags that exclude each other.
    """
    require_in("--candidates", flags["candidates"], Range(2))
    require_in("--tool-timeout", flags["tool_timeout"], _SECONDS)
    definitions, labels = flags["definitions"], flags["labels"]
    labels = None if labels is None else METHOD_LABELS[labels]
    return Parts(
        emotion_model=emotion_model(flags["identifier"], flags["lexicon"], labels),
        labels=labels,
        tools=tuple(_tools(flags["knowledge"], flags["faq"])),
        tool_limits=ToolLimits(timeout=flags["tool_timeout"], role=flags["tool_role"]),
        definitions=None if definitions is None else read_definitions(definitions),
        candidates=flags["candidates"],
    )


def emotion_model(
    identifier: Path | None, lexicon: Path | None, labels: Sequence[str] | None = None
) -> EmotionModel | None:
    """The small model that one of two flags names; a lexicon's emotions are called as the `labels`
    call them, HED's if there are none. Raises `InputError` as `parts_of`."""
    if identifier is not None and lexicon is not None:
        raise InputError("--identifier and --lexicon: hef has one small model; give one of them")
    if identifier is not None:
        return identified_emotions(load_identifier(identifier))
    if lexicon is None:
        return None
    labels = METHOD_LABELS["hed"] if labels is None else labels
    return lexicon_model(lexicon_in_labels(read_lexicon(lexicon), labels))


def _tools(knowledge: Path | None, faq: Path | None) -> list[Tool]:
    found = [] if knowledge is None else [knowledge_tool(knowledge)]
    return found if faq is None else [*found, faq_tool(faq)]

"""Emotion definitions in prompts: what each label that is offered means, said to the model.

A lever that the survey names. The shipped definitions are ours; a file of yours is a JSON or YAML
mapping of labels to texts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.yaml_text import read_yaml
from hen_jax.empathy.labels import Language, Words
from hen_jax.methods.play import Messages, Method, Steps
from hen_jax.methods.sections import is_chinese_text, with_system

DEFINITIONS: Mapping[str, Words] = {
    "happy": Words("something good has come or is at hand", "好事来了，或就在眼前"),
    "sad": Words("something dear is lost or out of reach", "失去了珍视的，或够不着了"),
    "angry": Words("a wrong was done that need not have been", "有人做了本可不做的错事"),
    "worried": Words("something bad may come, and it is not settled", "坏事也许会来，还没有定"),
    "afraid": Words("a danger is near", "危险就在近前"),
    "surprised": Words("it came otherwise than expected", "事情出乎意料"),
    "disgusted": Words("something is to be kept away from oneself", "想离某样东西远远的"),
    "neutral": Words("nothing stirs the mind much", "心里没有什么波动"),
    "relieved": Words("a danger or a burden is over", "危险或担子过去了"),
    "proud": Words("one did well, or one's own did", "自己或自己人做得好"),
    "ashamed": Words("one is less than one ought to be in others' eyes", "觉得在人前抬不起头"),
    "guilty": Words("one did a wrong and wishes it undone", "做错了事，但愿没做过"),
    "jealous": Words("another has what one wants or holds dear", "别人有了自己想要或珍视的"),
    "lonely": Words("nobody is near who understands", "身边没有懂自己的人"),
}
"""Of the labels in `empathy.labels.FINER_EMOTIONS`."""

_HEAD: Mapping[Language, str] = {"en": "What the emotions mean:", "zh": "各种情绪的意思："}


def definitions_text(
    labels: Sequence[str], definitions: Mapping[str, str], language: Language = "en"
) -> str:
    """A line for each label.

    Raises:
      InputError: a label without a definition.
    """
    missing = [label for label in labels if label not in definitions]
    if missing:
        raise InputError(f"no definition of {', '.join(missing)}; add it to the definitions")
    return "\n".join((_HEAD[language], *(f"- {label}: {definitions[label]}" for label in labels)))


def shipped(language: Language = "en") -> dict[str, str]:
    """Ours, in that language."""
    return {label: words.spoken(language) for label, words in DEFINITIONS.items()}


def read_definitions(path: Path) -> dict[str, str]:
    """Definitions of a file.

    Raises:
      InputError: it cannot be read, or is no mapping of labels to texts.
    """
    given = read_yaml(path)
    if not isinstance(given, dict) or not given:
        raise InputError(f"{path}: give a mapping of labels to definitions")
    for label, text in given.items():
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{path}: {label}: no text; give its definition")
    return {str(label): text.strip() for label, text in given.items()}


def with_definitions(method: Method, definitions: Mapping[str, str] | None = None) -> Method:
    """The method with the definitions at the end of the system message of each of its calls.

    None: those of ours, in the language of what the user says.
    """

    def steps(conversation: Messages) -> Steps:
        language: Language = "zh" if is_chinese_text(conversation) else "en"
        own = shipped(language) if definitions is None else definitions
        text = definitions_text(list(own), own, language)
        return (yield from added(method(conversation), text))

    return steps


def added(steps: Steps, text: str) -> Steps:
    """The steps of a method whose every call has `text` at the end of its system message."""
    wanted = next(steps)
    while True:
        replies = yield [with_system(messages, text) for messages in wanted]
        try:
            wanted = steps.send(replies)
        except StopIteration as end:
            return end.value

"""EmpatheticDialogues by convention: 32 labels, a record per listener turn, distinct-n.

Three parses of this set are in use and give other numbers: the released files by raw commas (ours,
`data.empathetic_dialogues`: 17,844 / 2,763 / 2,542 conversations), the listener-turn split of CEM
and others (40,250 / 5,734 / 5,255 turns), and the 2,713 test items of EmpDG's repository. Say which
one a figure is of. Data: CC BY-NC 4.0, not with hen_jax.
"""

from collections import Counter
from collections.abc import Sequence

from hen_jax.core.errors import InputError
from hen_jax.data.empathetic_dialogues import EmpatheticDialogue
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message

ED_EMOTIONS = (
    "surprised", "excited", "annoyed", "proud", "angry", "sad", "grateful", "lonely",
    "impressed", "afraid", "disgusted", "confident", "terrified", "hopeful", "anxious",
    "disappointed", "joyful", "prepared", "guilty", "furious", "nostalgic", "jealous",
    "anticipating", "embarrassed", "content", "devastated", "sentimental", "caring", "trusting",
    "ashamed", "apprehensive", "faithful",
)  # fmt: skip
"""The labels of the column `context`, in the index order that papers share."""


def emotion_items(dialogues: Sequence[EmpatheticDialogue]) -> list[ChoiceItem]:
    """A 32-way question for each conversation: what the speaker felt, from all that was said.

    Raises:
      InputError: an emotion that is none of the 32.
    """
    found = []
    for one in dialogues:
        if one.emotion not in ED_EMOTIONS:
            raise InputError(f"{one.id}: context {one.emotion!r} is none of the 32 emotions")
        said = [
            f"{'Speaker' if message.role == 'user' else 'Listener'}: {message.content}"
            for message in one.conversation.messages
        ]
        asked = "\n".join(
            [*said, "", f"What did the speaker feel? One word of: {', '.join(ED_EMOTIONS)}."]
        )
        answer = ED_EMOTIONS.index(one.emotion)
        messages = (Message("user", asked),)
        found.append(ChoiceItem(one.id, one.situation, "emotion", messages, ED_EMOTIONS, answer))
    return found


def listener_turns(dialogue: EmpatheticDialogue) -> list[tuple[tuple[Message, ...], str]]:
    """The context and the reply of each listener turn, as CEM and others count them."""
    messages = dialogue.conversation.messages
    return [
        (messages[:at], one.content)
        for at, one in enumerate(messages)
        if one.role == "assistant" and at
    ]


def distinct_diversity(replies: Sequence[str]) -> dict[str, float]:
    """Distinct-1 and -2 in percent over whitespace tokens of all replies, and the unique share.

    Every n-gram of every reply counts; code that drops each reply's last one gives less. Report it
    beside BLEU, which is nearly flat while uniqueness runs from 25 to 90 %.
    """
    grams = {n: Counter[tuple[str, ...]]() for n in (1, 2)}
    for reply in replies:
        words = reply.split()
        for n, counts in grams.items():
            counts.update(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    shares = {
        f"distinct_{n}": 100 * len(counts) / max(sum(counts.values()), 1)
        for n, counts in grams.items()
    }
    return {**shares, "unique": 100 * len(set(replies)) / max(len(replies), 1)}

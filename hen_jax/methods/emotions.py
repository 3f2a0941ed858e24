"""The emotion labels that methods choose from: names, and whether each is pleasant.

EBG (Zhu et al., 2024) has 24 emotion labels and an emotion attribute, HEF (Yang et al., 2024) the
32 of EmpatheticDialogues. EBG's list is not public: the 24 here, and all attributes, are ours.
"""

from collections.abc import Mapping
from typing import Literal

Attribute = Literal["positive", "negative", "neutral"]

EBG_LABELS: Mapping[str, Attribute] = {
    "happy": "positive",
    "grateful": "positive",
    "proud": "positive",
    "hopeful": "positive",
    "relieved": "positive",
    "excited": "positive",
    "content": "positive",
    "loving": "positive",
    "calm": "neutral",
    "surprised": "neutral",
    "curious": "neutral",
    "unsure": "neutral",
    "sad": "negative",
    "lonely": "negative",
    "disappointed": "negative",
    "grieving": "negative",
    "angry": "negative",
    "disgusted": "negative",
    "jealous": "negative",
    "anxious": "negative",
    "afraid": "negative",
    "ashamed": "negative",
    "guilty": "negative",
    "hopeless": "negative",
}
"""The default of EBG; ours."""

HED_LABELS: Mapping[str, Attribute] = {
    "happy": "positive",
    "sad": "negative",
    "angry": "negative",
    "worried": "negative",
    "afraid": "negative",
    "surprised": "neutral",
    "disgusted": "negative",
    "neutral": "neutral",
}
"""The labels of high-context empathy records (`empathy.labels.EMOTIONS`)."""


def attribute_of(emotion: str) -> Attribute | None:
    """Whether an emotion of either list is pleasant; None of another word."""
    return EBG_LABELS.get(emotion) or HED_LABELS.get(emotion)


def folded(label: str) -> str:
    """A label as it is compared: `Sad` is `sad`."""
    return label.strip().casefold()


ED_LABELS: tuple[str, ...] = (
    "surprised", "excited", "annoyed", "proud", "angry", "sad", "grateful", "lonely", "impressed",
    "afraid", "disgusted", "confident", "terrified", "hopeful", "anxious", "disappointed", "joyful",
    "prepared", "guilty", "furious", "nostalgic", "jealous", "anticipating", "embarrassed",
    "content", "devastated", "sentimental", "caring", "trusting", "ashamed", "apprehensive",
    "faithful",
)  # fmt: skip
"""The 32 situations of EmpatheticDialogues (Rashkin et al., 2019), in the order that CEM uses."""

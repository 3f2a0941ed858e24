"""The labels of a high-context empathy record, and the words for each in both languages.

HED's own label sets are not public. These are our reconstruction: eight emotions, eight roles and
the sixteen MBTI types, with role and personality belonging to the one who replies. The English
and Chinese words are what `hen_jax.text.prompts` shows the model; a reader in another language is
another field here, not another branch there.
"""

import dataclasses
from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclasses.dataclass(frozen=True)
class Words:
    """What a label is called in each language."""

    en: str
    zh: str

    def spoken(self, language: Language) -> str:
        """The word in `language`."""
        return {"en": self.en, "zh": self.zh}[language]


@dataclasses.dataclass(frozen=True)
class HedTask:
    """Which conditions a HED task gives beside the statement and its emotion."""

    role: bool
    personality: bool


EMOTIONS: dict[str, Words] = {
    "happy": Words("happy", "高兴"),
    "sad": Words("sad", "难过"),
    "angry": Words("angry", "生气"),
    "worried": Words("worried", "担心"),
    "afraid": Words("afraid", "害怕"),
    "surprised": Words("surprised", "惊讶"),
    "disgusted": Words("disgusted", "反感"),
    "neutral": Words("calm", "平静"),
}

FINER_EMOTIONS: dict[str, Words] = EMOTIONS | {
    "relieved": Words("relieved", "松了口气"),
    "proud": Words("proud", "骄傲"),
    "ashamed": Words("ashamed", "羞愧"),
    "guilty": Words("guilty", "内疚"),
    "jealous": Words("jealous", "嫉妒"),
    "lonely": Words("lonely", "孤单"),
}
"""Those of HED-style records and the six more that crossed items tell apart; ours."""

ROLE_WORDS: dict[str, Words] = {
    "parent": Words("their parent", "对方的父母"),
    "partner": Words("their partner", "对方的爱人"),
    "friend": Words("their friend", "对方的朋友"),
    "colleague": Words("their colleague", "对方的同事"),
    "teacher": Words("their teacher", "对方的老师"),
    "classmate": Words("their classmate", "对方的同学"),
    "sibling": Words("their brother or sister", "对方的兄弟姐妹"),
    "stranger": Words("a stranger passing by", "一个路过的陌生人"),
}
"""Who replies, as seen from the one who made the statement."""

PERSONALITIES: dict[str, Words] = {
    "ISTJ": Words("dutiful, exact, says little", "踏实守规矩，话不多"),
    "ISFJ": Words("caring, patient, remembers details", "体贴耐心，记得小事"),
    "INFJ": Words("quiet, perceptive, thinks of what it means", "安静敏锐，看得深"),
    "INTJ": Words("detached, planning, to the point", "冷静有谋划，直奔要点"),
    "ISTP": Words("practical, unruffled, hands-on", "务实淡定，动手解决"),
    "ISFP": Words("gentle, easy-going, shows rather than tells", "温和随性，做多过说"),
    "INFP": Words("soft-hearted, imaginative, sincere", "心软真诚，想象多"),
    "INTP": Words("curious, analytic, dry", "好奇爱琢磨，冷幽默"),
    "ESTP": Words("bold, joking, acts at once", "大胆爱逗，说干就干"),
    "ESFP": Words("lively, warm, likes company", "热闹亲热，爱凑一块儿"),
    "ENFP": Words("enthusiastic, playful, encouraging", "热情跳脱，会鼓劲"),
    "ENTP": Words("quick, teasing, full of ideas", "脑子快，爱抬杠，点子多"),
    "ESTJ": Words("organising, blunt, takes charge", "爱张罗，直来直去，拿主意"),
    "ESFJ": Words("sociable, looks after everyone", "热心周到，照顾人"),
    "ENFJ": Words("warm, persuasive, brings people along", "温暖有感染力，会带人"),
    "ENTJ": Words("decisive, demanding, strategic", "果断要强，讲策略"),
}

TASKS: dict[str, HedTask] = {
    "SER": HedTask(role=False, personality=False),
    "SRER": HedTask(role=True, personality=False),
    "SPER": HedTask(role=False, personality=True),
    "SRPER": HedTask(role=True, personality=True),
}
"""Statement + Emotion [+ Role] [+ Personality] -> Response; the reading of the names is ours."""

REJECTED_KINDS: tuple[str, ...] = (
    "low_context",
    "generic",
    "wrong_emotion",
    "wrong_role",
    "wrong_personality",
)
"""Why a reply is the worse one of a pair."""

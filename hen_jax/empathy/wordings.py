"""Words that name a feeling and words that give advice: the marks of a low-context reply.

High-context replies leave the feeling unnamed and the advice unspoken. Which words count is our
choice; no published list was used. Counts know nothing of negation or irony.
"""

import re
from collections.abc import Mapping

from hen_jax.empathy.labels import Language

EMOTION_WORDS: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "afraid", "angry", "anger", "annoyed", "anxiety", "anxious", "ashamed", "calm",
        "concerned", "delighted", "depressed", "despair", "disappointed", "disgusted",
        "distressed", "down", "embarrassed", "emotion", "emotional", "emotions", "excited",
        "fear", "feel", "feeling", "feelings", "frightened", "frustrated", "frustrating",
        "frustration", "furious", "glad", "grateful", "grief", "guilt", "guilty", "happiness",
        "happy", "heartbroken", "helpless", "hopeless", "hurt", "hurtful", "irritated",
        "jealous", "jealousy", "joy", "lonely", "loneliness", "mad", "miserable", "nervous",
        "overwhelmed", "overwhelming", "panic", "pride", "proud", "relief", "relieved", "sad",
        "sadness", "scared", "shame", "shocked", "sorrow", "stress", "stressed", "stressful",
        "surprised", "terrified", "thrilled", "unhappy", "upset", "upsetting", "worried",
        "worry", "worrying",
    ),
    "zh": (
        "悲伤", "悲痛", "不安", "惭愧", "沉重", "担心", "担忧", "烦恼", "烦躁", "反感", "愤怒",
        "感动", "感激", "感受", "高兴", "孤单", "孤独", "害怕", "害羞", "欢喜", "慌张", "激动",
        "寂寞", "嫉妒", "焦虑", "焦急", "惊喜", "惊讶", "沮丧", "开心", "恐惧", "苦恼", "快乐",
        "愧疚", "难过", "难受", "恼火", "内疚", "平静", "情绪", "伤心", "生气", "失落", "失望",
        "舒心", "松了口气", "痛苦", "委屈", "无奈", "无助", "喜悦", "心情", "心疼", "心酸",
        "欣慰", "幸福", "羞愧", "压力", "厌恶", "忧虑", "郁闷", "愉快", "着急", "震惊", "自豪",
        "尴尬", "紧张", "兴奋", "绝望", "抑郁", "崩溃",
    ),
}  # fmt: skip
"""By language, in lower case: words that name a feeling, or feelings as such."""

ADVICE: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "advise", "consider", "here are some", "how about", "i recommend", "i suggest",
        "i'd suggest", "it can help to", "it may help to", "it might help to",
        "it's important to", "make sure", "my advice", "remember to", "start by",
        "take a moment", "take some time", "try", "try to", "why don't you", "why not",
        "you can try", "you could", "you may want to", "you might want to", "you must",
        "you need to", "you ought to", "you should", "you'd better",
    ),
    "zh": (
        "必须", "不如", "不妨", "尝试", "记得", "建议", "可以考虑", "可以试试", "可以通过",
        "可以先", "你可以", "您可以", "你要", "您要", "你需要", "您需要", "请先", "请尽量",
        "试试", "试着", "为什么不", "务必", "一定要", "应当", "应该", "最好", "首先", "其次",
        "学会",
    ),
}  # fmt: skip
"""By language, in lower case: words that tell the other what to do."""


def count_words(text: str, words: tuple[str, ...], language: Language) -> int:
    """How many of these words stand in a text, the longer first, none counted inside another.

    English words are whole ones and case does not matter: "Try to rest, entry" holds "try to" once
    and no "try". Chinese has no such borders: 不安 is found wherever the two characters stand.
    """
    plain = text.lower().replace("’", "'")
    return len(_pattern(words, language).findall(plain))


def _pattern(words: tuple[str, ...], language: Language) -> re.Pattern[str]:
    """`re` keeps the compiled ones."""
    ordered = "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))
    return re.compile(rf"(?<![\w'])(?:{ordered})(?![\w'])" if language == "en" else ordered)

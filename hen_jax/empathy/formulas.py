"""Phrases that sound like empathy and say nothing: what low-context models fall back on.

Which phrases count as formulas is our choice; no published list was found.
"""

FORMULAS: dict[str, tuple[str, ...]] = {
    "en": (
        "i'm sorry to hear",
        "i am sorry to hear",
        "i'm so sorry to hear",
        "i can only imagine",
        "i understand how you feel",
        "i understand that you",
        "it's completely understandable",
        "it's understandable that",
        "that must be",
        "that sounds really",
        "your feelings are valid",
        "it's okay to feel",
        "it's important to remember",
        "remember that you",
        "you are not alone",
        "you're not alone",
        "i'm here for you",
        "feel free to",
        "take care of yourself",
        "as an ai",
    ),
    "zh": (
        "我很抱歉听到",
        "很遗憾听到",
        "听到这个消息我很",
        "我理解你的感受",
        "我能理解你的",
        "我完全理解",
        "这是可以理解的",
        "你的感受是正常的",
        "你并不孤单",
        "你不是一个人",
        "请记住",
        "重要的是",
        "希望这些建议",
        "如果你需要帮助",
        "随时告诉我",
        "照顾好自己",
        "作为一个人工智能",
        "作为ai",
    ),
}
"""By language, in lower case with plain apostrophes."""


def formulas_in(text: str, language: str) -> list[str]:
    """The formulas of that language that occur in a text, each once; case does not matter.

    A curly apostrophe is as good as a plain one: "I’m sorry to hear that" holds one.
    """
    plain = text.lower().replace("’", "'")
    return [phrase for phrase in FORMULAS[language] if phrase in plain]

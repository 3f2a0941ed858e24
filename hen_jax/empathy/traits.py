"""Who replies and where, as CPED describes it: the Big Five, age, gender and scene, in words."""

from typing import Literal

from hen_jax.empathy.labels import Words

Level = Literal["high", "low"]

TRAITS: dict[str, dict[Level, Words]] = {
    "neuroticism": {
        "high": Words("easily upset", "容易情绪化"),
        "low": Words("steady", "情绪稳定"),
    },
    "extraversion": {"high": Words("outgoing", "外向"), "low": Words("reserved", "内向")},
    "openness": {"high": Words("open to the new", "爱尝新"), "low": Words("conventional", "守旧")},
    "agreeableness": {"high": Words("accommodating", "随和"), "low": Words("unyielding", "强硬")},
    "conscientiousness": {
        "high": Words("conscientious", "做事认真"),
        "low": Words("careless", "散漫"),
    },
}
"""The Big Five, high and low. MBTI types are never derived from them: they are other measures."""

AGES: dict[str, Words] = {
    "children": Words("a child", "小孩"),
    "young": Words("young", "年轻人"),
    "middle-aged": Words("middle-aged", "中年人"),
    "elderly": Words("elderly", "老人"),
}

GENDERS: dict[str, Words] = {"female": Words("a woman", "女"), "male": Words("a man", "男")}

SCENES: dict[str, Words] = {
    "home": Words("at home", "家里"),
    "office": Words("at the office", "办公室"),
    "school": Words("at school", "学校"),
    "mall": Words("in a shopping mall", "商场"),
    "hospital": Words("in hospital", "医院"),
    "restaurant": Words("in a restaurant", "饭馆"),
    "sports-venue": Words("at a sports venue", "运动场馆"),
    "entertainment-venue": Words("at a place of entertainment", "娱乐场所"),
    "car": Words("in a car", "车里"),
    "outdoor": Words("outdoors", "户外"),
    "other-venue": Words("somewhere else", "别处"),
}

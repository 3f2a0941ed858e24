"""Masks for what identifies a person: e-mail, telephone, ID and account numbers, zh and en forms.

Patterns find what has a form. They do not find names, addresses or a life story: a scrubbed file
is not an anonymous one. Nothing leaves the machine.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

MASKS: Mapping[str, str] = {
    "email": r"[\w.+-]+\s?(?:@|\(at\)|\[at\]|#at#)\s?[\w-]+(?:\.[\w-]+)+",
    "id": (
        # Chinese resident number; US social security number; UK national insurance number
        r"[1-9]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]"
        r"|\d{3}-\d{2}-\d{4}"
        r"|[A-CEGHJ-PR-TW-Z]{2}\s?\d{2}\s?\d{2}\s?\d{2}\s?[A-D]"
        # a passport or another document, where the text says so
        r"|(?<=护照号)[:是为]?\s?[A-Z]\w{7,8}"
        r"|(?<=passport )(?:number |no\.? )?(?=\w*\d)[A-Z0-9]{6,9}"
    ),
    "account": (
        r"(?:\d[ -]?){15,18}\d"  # cards
        r"|(?:(?i:qq|wechat|weixin)|微信|扣扣)(?:号|id)?\s?[:是为]?\s?(?=[\w-]*\d)[A-Za-z0-9_-]{5,20}"
    ),
    "phone": (
        r"(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}"  # Chinese mobile
        r"|0\d{2,3}[- ]\d{7,8}"  # Chinese landline
        r"|400[- ]?\d{3}[- ]?\d{4}"
        r"|(?:\+?1[-. ]?)?(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}"  # North America
        r"|0\d{3,4}[ -]\d{3}[ -]?\d{3,4}"  # Britain
        r"|\+\d{1,3}(?:[- .]?\d{2,4}){3,5}"  # with a country code
    ),
}
"""Kind -> what it looks like, in half-width characters. The first kind that matches wins."""

_ANY = re.compile(
    "|".join(
        rf"(?P<{kind}>(?<![A-Za-z0-9])(?:{form})(?![A-Za-z0-9]))" for kind, form in MASKS.items()
    )
)
_WIDTHS = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFF5F)}
"""Full-width letters, digits and signs to half-width, one for one, so that places stay the same."""


def scrub_text(text: str) -> tuple[str, Counter[str]]:
    """The text with every find replaced by `[EMAIL]`, `[PHONE]` and so on, and how many of each.

    `我的电话是１３８００１３８０００` becomes `我的电话是[PHONE]`.
    """
    counts: Counter[str] = Counter()
    pieces, end = [], 0
    for found in _ANY.finditer(text.translate(_WIDTHS)):
        kind = found.lastgroup or ""
        counts[kind] += 1
        pieces += [text[end : found.start()], f"[{kind.upper()}]"]
        end = found.end()
    return "".join([*pieces, text[end:]]), counts


def scrub_value(value: Any) -> tuple[Any, Counter[str]]:
    """A JSON value with every text in it scrubbed; keys and numbers stay as they are."""
    if isinstance(value, str):
        return scrub_text(value)
    counts: Counter[str] = Counter()
    if isinstance(value, list):
        items = []
        for item in value:
            scrubbed, found = scrub_value(item)
            items.append(scrubbed)
            counts += found
        return items, counts
    if isinstance(value, dict):
        pairs = {}
        for key, item in value.items():
            pairs[key], found = scrub_value(item)
            counts += found
        return pairs, counts
    return value, counts

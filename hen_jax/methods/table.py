"""The methods by name, and the levers that may be added to any of them."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import get_args

from hen_jax.core.errors import InputError
from hen_jax.empathy.labels import Language
from hen_jax.methods import coe, distil, ebg, hef, muffin, pecer, tooled
from hen_jax.methods.definitions import added, with_definitions
from hen_jax.methods.emotion_models import EmotionModel
from hen_jax.methods.emotions import EBG_LABELS, ED_LABELS, HED_LABELS, Attribute, attribute_of
from hen_jax.methods.hef import HefOptions
from hen_jax.methods.play import Messages, Method, Steps, plainly
from hen_jax.methods.sections import is_chinese_text
from hen_jax.methods.tools import Tool
from hen_jax.text.prompts import HIGH_CONTEXT_RULES

METHOD_LABELS: Mapping[str, tuple[str, ...]] = {
    "hed": tuple(HED_LABELS),
    "ed": ED_LABELS,
    "ebg": tuple(EBG_LABELS),
}
"""Emotion labels that HEF and EBG choose among."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """What methods may need of the user: a small model, tools, definitions."""

    emotion_model: EmotionModel | None = None
    labels: tuple[str, ...] | None = None  # None: of hef those of HED, of ebg its own
    tools: tuple[Tool, ...] = ()
    tool_limits: tooled.ToolLimits = tooled.ToolLimits()
    definitions: Mapping[str, str] | None = None  # None: those of ours
    candidates: int = 4  # of muffin


Lever = Callable[[Method, Parts], Method]


def system_prompt(method: Method, parts: Parts) -> Method:
    """The method with the high-context rules in the system message of each of its calls."""

    def steps(conversation: Messages) -> Steps:
        language: Language = "zh" if is_chinese_text(conversation) else "en"
        rules = (rule.spoken(language) for rule in HIGH_CONTEXT_RULES)
        text = {"en": " ", "zh": ""}[language].join(rules)
        return (yield from added(method(conversation), text))

    return steps


@dataclasses.dataclass(frozen=True)
class _Entry:
    """How a method is made, and which parts of it can be switched off."""

    make: Callable[[Parts, frozenset[str]], Method]
    switches: tuple[str, ...] = ()
    within: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The switches that do nothing without another one, and that other one."""


def _plain(make: Callable[[Parts], Method]) -> _Entry:
    return _Entry(lambda parts, off: make(parts))


def _tooled(parts: Parts) -> Method:
    if not parts.tools:
        raise InputError("method 'tooled' needs a tool; give --knowledge FILE or --faq FILE")
    return tooled.tooled(parts.tools, parts.tool_limits)


def _ebg(parts: Parts) -> Method:
    if parts.labels is None:
        return ebg.ebg()
    labels: dict[str, Attribute] = {}
    for label in parts.labels:
        if (attribute := attribute_of(label)) is not None:
            labels[label] = attribute
    if missing := [label for label in parts.labels if label not in labels]:
        raise InputError(
            f"method 'ebg' has no attribute (positive, negative, neutral) of {', '.join(missing)}; "
            "give --labels ebg or hed"
        )
    return ebg.ebg(labels)


def _hef(parts: Parts, off: frozenset[str]) -> Method:
    offered = METHOD_LABELS["hed"] if parts.labels is None else parts.labels
    if "model" in off:
        return hef.hef(None, offered)
    if parts.emotion_model is None:
        raise InputError(
            "method 'hef' needs a small model; give --identifier DIR or --lexicon FILE, or take "
            "hef-model, the large model without one"
        )
    labels = tuple(dict.fromkeys((*parts.emotion_model.labels, *offered)))
    options = HefOptions(two_stage="two_stage" not in off, cause="cause" not in off)
    return hef.hef(parts.emotion_model, labels, options)


def _coe(variant: str) -> _Entry:
    if variant == "base":
        return _plain(lambda parts: coe.coe("base"))
    return _Entry(lambda parts, off: coe.coe("base" if off else variant), ("lens",))


def _improved(family: distil.Family) -> _Entry:
    return _plain(lambda parts: distil.improved(family))


METHODS: Mapping[str, _Entry] = {
    "base": _plain(lambda parts: plainly),
    "system_prompt": _plain(lambda parts: system_prompt(plainly, parts)),
    **{f"coe_{variant}": _coe(variant) for variant in coe.VARIANTS},
    "ebg": _plain(_ebg),
    "hef": _Entry(_hef, ("model", "two_stage", "cause"), {"two_stage": "model", "cause": "model"}),
    "muffin": _plain(lambda parts: muffin.muffin(parts.candidates)),
    "pecer": _plain(lambda parts: pecer.pecer(parts.emotion_model)),
    "tooled": _plain(_tooled),
    **{f"improve_{family}": _improved(family) for family in get_args(distil.Family)},
}
"""By name. A model that was trained for a method is another back-end: see `hen compare`."""

LEVERS: Mapping[str, Lever] = {
    "rules": system_prompt,
    "definitions": lambda method, parts: with_definitions(method, parts.definitions),
}
"""What may be added to any method, in the order in which they are added: `coe_cbt+definitions`."""


def method_named(name: str, parts: Parts) -> Method:
    """A method by its name: `hef-cause+rules` is hef without cause words, with the lever `rules`.

    Raises:
      InputError: no such method, switch or lever, one of them twice, or a part that is missing.
    """
    bare, *levers = name.split("+")
    first, *off = bare.split("-")
    if first not in METHODS:
        raise InputError(f"method {first!r}; allowed: {', '.join(METHODS)}")
    entry = METHODS[first]
    for given, known, what in ((off, entry.switches, "switch"), (levers, LEVERS, "lever")):
        for one in given:
            if one not in known or given.count(one) > 1:
                allowed = ", ".join(known) or "none"
                raise InputError(f"{what} {one!r} of {name!r}; allowed, each once: {allowed}")
    method = entry.make(parts, frozenset(off))
    for lever, add in LEVERS.items():
        if lever in levers:
            method = add(method, parts)
    return method


def levers_of(name: str) -> tuple[str, ...]:
    """What can be switched off or added to a method, for an ablation.

    Raises:
      InputError: no such method.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r}; allowed: {', '.join(METHODS)}")
    return (*METHODS[name].switches, *LEVERS)


def with_levers(name: str, on: Collection[str], varied: Collection[str]) -> str:
    """The name of a method with those of the `varied` levers that are `on`, and not the others of
    them. A switch that is not varied stays on; one that does nothing with another one off is not
    named beside it."""
    entry = METHODS[name]
    off = [one for one in entry.switches if one in varied and one not in on]
    off = [one for one in off if entry.within.get(one) not in off]
    return "+".join(("-".join((name, *off)), *(one for one in LEVERS if one in on)))

"""What small models say of the replies of several methods: emotions, and EPITOME's levels."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from hen_jax.methods.emotion_models import EmotionModel, top_k_recall
from hen_jax.methods.epitome import (
    REWARD_MECHANISMS,
    Identify,
    context_of,
    emp_f1,
    likeliest_levels,
)
from hen_jax.methods.measured import MethodItem, Several
from hen_jax.methods.play import Played
from hen_jax.text.conversation import Message


def emp_f1_of(
    items: Sequence[MethodItem], played: Sequence[Played], identify: Identify
) -> dict[str, float]:
    """Emp-F1 over the conversations that have a reference reply; nothing where none has."""
    there = [(item, one) for item, one in zip(items, played, strict=True) if item.reference]
    if not there:
        return {}
    said = [(context_of(item.messages), one.outcome.reply) for item, one in there]
    wanted = [(context_of(item.messages), item.reference or "") for item, _ in there]
    found = emp_f1(likeliest_levels(identify, wanted), likeliest_levels(identify, said))
    return {f"Emp-F1 {name}": value for name, value in found.items()}


def small_model_recall(items: Sequence[MethodItem], model: EmotionModel) -> dict[str, float]:
    """How often the emotion of a conversation is the small model's likeliest, or among its three
    likeliest; nothing where no emotion is known."""
    known = [(one.messages, one.emotion) for one in items if one.emotion]
    if not known:
        return {}
    asked, gold = [messages for messages, _ in known], [label for _, label in known]
    return {f"top-{k} recall": top_k_recall(model, asked, gold, k) for k in (1, 3)}


def affect_measures(model: EmotionModel) -> dict[str, Several]:
    """By a small model of emotions: how alike the emotions of what the user said and of the reply
    are, as a cosine (1 of the same text), the KL divergence of the first from the second in nats,
    and whether the likeliest agree. NaN where the model knows nothing of either: no word of a
    lexicon, or no word at all."""

    def probs(text: str) -> np.ndarray:
        said = (Message("user", text),)
        if not model.knows(said):
            return np.full(len(model.labels), math.nan)
        return np.asarray(model.emotion_probs(said), float)

    def of(figure: Callable[[np.ndarray, np.ndarray], float]) -> Several:
        def each(items: Sequence[MethodItem], played: Sequence[Played]) -> np.ndarray:
            values = []
            for item, one in zip(items, played, strict=True):
                p, q = probs(context_of(item.messages)), probs(one.outcome.reply)
                values.append(math.nan if np.isnan([*p, *q]).any() else figure(p, q))
            return np.asarray(values)

        return each

    return {
        "affect cosine": of(lambda p, q: float(p @ q / np.linalg.norm(p) / np.linalg.norm(q))),
        "affect KL": of(_divergence),
        "affect agreement": of(lambda p, q: float(p.argmax() == q.argmax())),
    }


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-9))).sum())


def level_measures(identify: Identify) -> dict[str, Several]:
    """The expected EPITOME level of each mechanism, 0 to 2, by an identifier."""

    def of(name: str) -> Several:
        def levels(items: Sequence[MethodItem], played: Sequence[Played]) -> np.ndarray:
            pairs = [
                (context_of(item.messages), one.outcome.reply)
                for item, one in zip(items, played, strict=True)
            ]
            return identify(pairs)[name] @ np.arange(3.0)

        return levels

    return {f"level {name}": of(name) for name in REWARD_MECHANISMS}

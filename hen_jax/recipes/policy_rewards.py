"""The rewards that a config names: settings -> functions of replies.

Another kind is an entry in `REWARDS`; it is built once, before the first rollout.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from hen_jax.core.errors import InputError
from hen_jax.core.modules import load_module
from hen_jax.evaluation import reply_rules
from hen_jax.evaluation.rewards import Plain, Reward, Term, each
from hen_jax.recipes.policy_reward_kinds import epitome_reward, judge_reward, reward_model
from hen_jax.recipes.policy_reward_source import Circumstance, RewardSource

_Build = Callable[[RewardSource, Circumstance], Reward]


def _plain(make: Callable[[RewardSource], Plain]) -> _Build:
    return lambda source, around: each(make(source), around.seconds)


def function_of(source: RewardSource) -> Plain:
    """The function that `path` names, as FILE.py:NAME: `(prompt, reply, record) -> float`.

    Raises:
      InputError: no such file or function, or a file that does not load.
    """
    file, _, name = (source.path or "").rpartition(":")
    if not file or not Path(file).is_file():
        raise InputError(
            f"reward {source.called!r}: path is {source.path!r}; give FILE.py:NAME of a function "
            "(prompt, reply, record) -> float"
        )
    try:
        module = load_module(Path(file))
    except InputError as error:
        raise InputError(f"reward {source.called!r}: {error}") from error
    found: Any = vars(module).get(name)
    if found is None or not callable(found):
        raise InputError(f"reward {source.called!r}: {file} has no function {name!r}")
    return cast(Plain, found)


REWARDS: dict[str, _Build] = {
    "length": _plain(lambda source: reply_rules.length_band(source.low, source.high)),
    "repetition": _plain(lambda source: reply_rules.no_repetition(source.n)),
    "language": _plain(lambda source: reply_rules.in_language(source.language)),
    "formulas": _plain(lambda source: reply_rules.no_formulas(source.language)),
    "function": _plain(function_of),
    "model": reward_model,
    "judge": judge_reward,
    "epitome": epitome_reward,
}
"""Kinds of rewards, by name."""


def check_rewards(sources: Sequence[RewardSource]) -> None:
    """Raises `InputError` for no reward at all, an unknown kind, or two of one name."""
    for source in sources:
        if source.kind not in REWARDS:
            raise InputError(f"config.rewards: kind {source.kind!r}; allowed: {', '.join(REWARDS)}")
    names = [source.called for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"config.rewards: two are called {name!r}; give them names")
    if all(source.held_out for source in sources):
        raise InputError("config.rewards has none to train on; give at least one not held_out")


def terms(sources: Sequence[RewardSource], around: Circumstance) -> tuple[Term, ...]:
    """The rewards, ready."""
    return tuple(
        Term(one.called, REWARDS[one.kind](one, around), one.weight, one.held_out)
        for one in sources
    )

"""The curves of a run's log, chart by chart: loss, learnt curriculum, rewards, experts."""

from collections.abc import Mapping, Sequence
from typing import Any

from hen_jax.verbs.report.charts import Curve, lines
from hen_jax.verbs.report.folder import RunStory

_GROUPS = {
    "place": "Learnt curriculum: place of each task in the order, 0 first",
    "difficulty": "Difficulty: loss after adaptation, by task",
    "score": "Order scores, by task",
    "weight": "Mean weight, by task",
    "reward": "Rewards",
    "loss": "Loss, one by one",
}
"""Metrics that are logged as GROUP/NAME -> what their chart is called."""

SPELT = {"loss": ("loss_",)}
"""What begins other names of a group: experts log `loss_NAME`."""

_SINGLE = {
    "kl": "KL to where it began, nats per token",
    "entropy": "Entropy, nats per token",
    "reply_tokens": "Length of replies, tokens",
    "gradient_norm": "Gradient norm",
}
"""Metrics with a chart of their own, where they are logged."""

REWARD = "reward"

Lines = Sequence[Mapping[str, Any]]


def curves(run: RunStory) -> list[dict[str, Any]]:
    """Charts, each with its title; none of a run that has no log."""
    train = [line for line in run.lines if line["kind"] == "train"]
    held = [line for line in run.lines if line["kind"] == "eval"]
    names = list(dict.fromkeys(name for line in train for name in line))
    rewarded = REWARD in names  # the loss of a policy's objective, and minus its reward, differ
    found = [_loss(train, [] if rewarded else held)] if train or held else []
    if rewarded:
        both = [_line("training", REWARD, train), _line("held out", REWARD, held)]
        found.append(_chart("Mean reward", REWARD, [both[0], both[1]._replace(marks=True)]))
    for group, title in _GROUPS.items():
        own = [name for name in names if name.startswith((f"{group}/", *SPELT.get(group, ())))]
        if own:
            drawn = [_line(name[len(group) + 1 :], name, train) for name in own]
            found.append(_chart(title, group, drawn))
    for name, title in _SINGLE.items():
        if name in names:
            found.append(_chart(title, name, [_line(name, name, train)]))
    return [one for one in found if one["svg"]]


def _loss(train: Lines, held: Lines) -> dict[str, Any]:
    drawn = [_line("training", "loss", train)] if train else []
    if any("loss" in line for line in held):
        drawn.append(_line("held out", "loss", held)._replace(marks=True))
    return _chart("Loss", "loss", drawn)


def _line(called: str, name: str, rows: Lines) -> Curve:
    return Curve(called, [row["step"] for row in rows], [row.get(name) for row in rows])


def _chart(title: str, up: str, drawn: Sequence[Curve]) -> dict[str, Any]:
    return {"title": title, "svg": lines(f"{title}, by update", "update", up, drawn)}

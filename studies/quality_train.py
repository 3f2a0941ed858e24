"""Rewards made of a language model, for the study of their quality: objectives, training, answers.

`log_odds` is how much likelier a reply is at its prompt than under other conditions, on a model
that is trained to tell them apart:

    r(x, y) = log p(y | x) / beta - log mean_x' exp(log p(y | x') / beta),

the x' drawn from an item's contrasts. A reply's own frequency cancels, which no reference at
another kind of prompt does as well. `head` is a linear map of the last token's state, as in the
reward stage; `both` is their sum. All are trained by Bradley-Terry at each prompt, and the log-odds
by the cross-entropy of the right prompt of each reply as well.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from quality_model import K, Study, above, most_trained, row_values
from quality_rows import Item, Prompt, Row, contrasts_of, laid_row, width_of

from hen_jax.core.types import Array, Batch, Tree
from hen_jax.runs.earlier import trainable_and_frozen
from hen_jax.text.tokenizer import ChatTokenizer


@dataclasses.dataclass(frozen=True)
class Method:
    """How a reward is made and trained."""

    kind: Literal["log_odds", "head", "both"] = "log_odds"
    epochs: float = 4.0
    learning_rate: float = 5e-4
    beta: float = 2.0  # temperature of log-probabilities, in nats
    contrasts: int = 1  # other prompts of an item, drawn anew each epoch from the first `pool`
    pool: int = 2
    asked_contrasts: int = 2  # the same when it is asked
    below: int = 5  # layers that stay frozen; what they make of a row is computed once
    rank: int = 16
    items: int = 4  # of a batch
    seed: int = 0


class Asked(NamedTuple):
    """An item's rows, `R` of them: its prompts, then contrasts."""

    item: Item
    rows: tuple[Row, ...]

    @property
    def width(self) -> int:
        """As the longest needs it."""
        return max(width_of(row.length) for row in self.rows)


class Laid(NamedTuple):
    """A batch of `C` items with `R` rows each, laid one after another."""

    rows: Batch  # [C R, T]
    soft: np.ndarray  # [C R, T, D]: what the frozen layers make of them
    present: Array  # [C, R]; 0 of padding
    crossed: Array  # [C]: row 1 is a prompt too, and no contrast


class Drawer:
    """Draws contrasts and lays rows; each distinct row is rendered once."""

    def __init__(self, words: ChatTokenizer):
        self.words = words
        self.known: dict[tuple[str, Prompt], Row] = {}

    def asked(
        self, item: Item, contrasts: int, pool: int, random: np.random.Generator | None = None
    ) -> Asked:
        """The item with so many contrasts of its pool, the first ones unless `random` draws.

        One more where it has one prompt only.
        """
        number = contrasts + 2 - len(item.prompts) if contrasts else 0
        others = contrasts_of(item, max(pool, number))
        if random is not None:
            others = [others[at] for at in random.permutation(len(others))]
        prompts = [*item.prompts, *others[:number]]
        return Asked(item, tuple(self._row(item, prompt) for prompt in prompts))

    def _row(self, item: Item, prompt: Prompt) -> Row:
        key = item.id, prompt
        if key not in self.known:
            self.known[key] = laid_row(prompt, item.replies, self.words)
        return self.known[key]


def laid(some: Sequence[Asked], size: int, held: int, study: Study) -> Laid:
    """A batch of items of one width, padded to `size` items of `held` rows."""
    width, rows = max(one.width for one in some), []
    present, crossed = np.zeros((size, held), np.float32), np.zeros(size, np.float32)
    for at, one in enumerate(some):
        present[at, : len(one.rows)] = 1
        crossed[at] = len(one.item.prompts) == 2
        rows += [*one.rows, *[Row((), 0)] * (held - len(one.rows))]
    return Laid(*above(study, rows, width, size * held), present, crossed)


def log_odds(
    values: Float[Array, "C R K"], present: Float[Array, "C R"], crossed: Float[Array, "C"]
) -> Float[Array, "C 2 K"]:
    """Of each reply at each prompt, against the contrasts: the other prompt is none of them."""
    others = present.at[:, 0].set(0).at[:, 1].multiply(1 - crossed)
    count = others.sum(axis=1)[:, None]
    masked = jnp.where(others[..., None] > 0, values, -1e9)
    against = jax.nn.logsumexp(masked, axis=1) - jnp.log(jnp.maximum(count, 1))
    against = jnp.where(count > 0, against, 0.0)
    return values[:, :2] - against[:, None]


def bradley_terry(r: Float[Array, "C 2 K"], batch: Laid) -> tuple[Array, Array]:
    """The loss per question in nats, and the share of questions that are right."""
    here = jnp.stack([r[:, 0, 0] - r[:, 0, 1], r[:, 1, 1] - r[:, 1, 0]], axis=1)
    weight = jnp.stack([batch.present[:, 0], batch.crossed], axis=1)
    total = jnp.maximum(weight.sum(), 1)
    right = 0.5 * (1 + jnp.sign(here))
    lost = jnp.where(weight > 0, jax.nn.softplus(-here), 0.0)
    return lost.sum() / total, (right * weight).sum() / total


def right_prompt(values: Float[Array, "C R K"], batch: Laid) -> Array:
    """The cross-entropy of each reply's own prompt among an item's prompts and contrasts."""
    masked = jnp.where(batch.present[..., None] > 0, values, -1e9)
    each = -jax.nn.log_softmax(masked, axis=1)
    weight = jnp.stack([batch.present[:, 0], batch.crossed], axis=1)
    own = jnp.stack([each[:, 0, 0], each[:, 1, 1]], axis=1)
    return jnp.where(weight > 0, own, 0.0).sum() / jnp.maximum(weight.sum(), 1)


class Program(NamedTuple):
    """The step and the rewards of a method, compiled once for each width."""

    step: Callable[..., Any]
    rewards: Callable[..., Any]
    optimizer: optax.GradientTransformation


class Trained(NamedTuple):
    """What a run computes with."""

    params: Tree
    frozen: Tree


def begin(study: Study, method: Method) -> Trained:
    """A fresh adapter, and a head that begins small and random."""
    parts = trainable_and_frozen(study.upper, study.lora, study.execution, method.seed)
    shape = study.upper.config.width, 1
    head = 0.02 * jax.random.normal(jax.random.key(method.seed), shape)
    return Trained({"adapter": parts.trainable, "head": head}, parts.frozen)


def program(study: Study, method: Method, steps: int) -> Program:
    """Adam, clipped, warmed up over a tenth of the steps, cosine to a tenth."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, method.learning_rate, max(1, steps // 10), max(2, steps), 0.1 * method.learning_rate
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    graphdef = study.upper.graphdef

    def rewards(params: Tree, frozen: Tree, batch: Laid, trained: int) -> tuple[Array, Array]:
        leaves = params["adapter"], frozen
        values, states = row_values(graphdef, batch.rows, trained, *leaves, soft=batch.soft)
        shape = *batch.present.shape, K
        head = (states @ params["head"]).reshape(shape)[:, :2]
        values = values.reshape(shape) / method.beta
        if method.kind == "head":
            return head, values
        odds = log_odds(values, batch.present, batch.crossed)
        return (odds if method.kind == "log_odds" else odds + head), values

    def loss(params: Tree, frozen: Tree, batch: Laid, trained: int) -> tuple[Array, Array]:
        found, values = rewards(params, frozen, batch, trained)
        lost, right = bradley_terry(found, batch)
        return (lost if method.kind == "head" else lost + right_prompt(values, batch)), right

    @partial(jax.jit, static_argnames="trained", donate_argnums=(0, 1))
    def step(params: Tree, state: Any, frozen: Tree, batch: Laid, trained: int) -> Any:
        run = jax.value_and_grad(loss, has_aux=True)
        (value, right), grads = run(params, frozen, batch, trained)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value, right

    asked = jax.jit(lambda *a, trained: rewards(*a, trained)[0], static_argnames="trained")
    return Program(step, asked, optimizer)


def epochs(items: Sequence[Item], method: Method, drawer: Drawer) -> Iterable[list[Asked]]:
    """Batches without end, of one width each; contrasts are drawn anew each epoch."""
    random = np.random.default_rng(method.seed)
    contrasts = 0 if method.kind == "head" else method.contrasts
    while True:
        drawn = [
            drawer.asked(items[at], contrasts, method.pool, random)
            for at in random.permutation(len(items))
        ]
        by_width: dict[int, list[Asked]] = {}
        for one in drawn:
            by_width.setdefault(one.width, []).append(one)
        size = method.items
        dealt = [
            own[start : start + size]
            for _, own in sorted(by_width.items())
            for start in range(0, len(own), size)
        ]
        yield from (dealt[at] for at in random.permutation(len(dealt)))


def train(study: Study, method: Method, items: Sequence[Item], state: Path) -> Trained:
    """A run from its beginning, or from where `state`, its last checkpoint, was written."""
    steps = max(1, round(method.epochs * len(items) / method.items))
    held = 2 + (0 if method.kind == "head" else method.contrasts)
    run, began, drawer = program(study, method, steps), begin(study, method), Drawer(study.words)
    params, kept = began.params, run.optimizer.init(began.params)
    done, (params, kept) = _restored(state, (params, kept))
    every = [row for item in items for row in drawer.asked(item, method.pool, method.pool).rows]
    trained = most_trained(every)
    study.states.learn(every)
    start, tokens, log = time.perf_counter(), 0, []
    for number, some in enumerate(itertools.islice(epochs(items, method, drawer), steps)):
        if number < done:
            continue
        batch, width = laid(some, method.items, held, study), max(one.width for one in some)
        params, kept, value, right = run.step(
            params, kept, began.frozen, batch, trained=trained[width]
        )
        log.append((float(value), float(right)))
        tokens += sum(row.length for one in some for row in one.rows)
        if (number + 1) % 10 == 0 or number + 1 == steps:
            (loss, share), seconds = np.mean(log[-40:], axis=0), time.perf_counter() - start
            print(f"{state.stem}: {number + 1}/{steps} loss {loss:.3f} right {share:.3f} "
                  f"{tokens / seconds:.0f} tokens/s", flush=True)  # fmt: skip
            _save(state, number + 1, (params, kept))
    return Trained(params, began.frozen)


def answers(study: Study, method: Method, run: Trained, items: Sequence[Item]) -> np.ndarray:
    """`[n, 2, 2]`: the reward of each reply at each prompt; NaN where there is no second prompt."""
    contrasts = 0 if method.kind == "head" else method.asked_contrasts
    held, size, drawer = 2 + contrasts, 2, Drawer(study.words)
    rewards = program(study, method, 1).rewards
    asked = [drawer.asked(item, contrasts, contrasts) for item in items]
    every = [row for one in asked for row in one.rows]
    trained = most_trained(every)
    study.states.learn(every)
    order = sorted(range(len(asked)), key=lambda at: asked[at].width)
    found = np.full((len(items), 2, K), np.nan)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        some = [asked[at] for at in places]
        width = max(one.width for one in some)
        batch = laid(some, size, held, study)
        values = np.asarray(rewards(run.params, run.frozen, batch, trained=trained[width]))
        for at, value in zip(places, values, strict=False):
            both = len(items[at].prompts) == 2
            found[at, : 1 + both] = value[: 1 + both]
    return found


def _save(path: Path, step: int, tree: Any) -> None:
    leaves = {str(at): np.asarray(leaf) for at, leaf in enumerate(jax.tree.leaves(tree))}
    staged = path.with_suffix(".tmp.npz")
    np.savez(staged, **leaves, step=np.asarray(step))  # pyright: ignore[reportArgumentType]
    staged.replace(path)


def _restored(path: Path, tree: Any) -> tuple[int, Any]:
    if not path.exists():
        return 0, tree
    kept = np.load(path)
    leaves, structure = jax.tree.flatten(tree)
    new = [jnp.asarray(kept[str(at)]) for at in range(len(leaves))]
    return int(kept["step"]), jax.tree.unflatten(structure, new)

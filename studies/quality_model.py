"""SmolLM2-135M as a reward: what it gives replies, frozen and trained, for the study of quality.

Two kinds of score. `log_ratio` is how much likelier a prompt makes a reply,

    r(x, y) = (log p(y | x) - (1 - s) log q(y | last turn of x) - s log q(y)) / beta,

with p the trained model, q the frozen one, and s the share of the reference that has seen nothing
of the prompt. `head` is a linear map of the last token's state. Both are trained by Bradley-Terry
at each prompt and, of crossings, between the two prompts of each reply as well.
"""

import dataclasses
import itertools
import json
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
from quality_rows import NOTHING, WIDTHS, Question, Row, laid_batch, laid_row, row_key, width_of

from hen_jax.core.files import write_json
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.types import Array, Batch, Tree
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.models.heads import last_tokens
from hen_jax.objectives.tokens import score_tokens
from hen_jax.runs.earlier import Partition, trainable_and_frozen
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import BaseModel, open_model
from hen_jax.text.conversation import Message
from hen_jax.text.tokenizer import ChatTokenizer

K = 2
"""Replies of a row."""


@dataclasses.dataclass(frozen=True)
class Method:
    """How a reward is made and trained."""

    kind: Literal["log_ratio", "head"] = "log_ratio"
    epochs: float = 3.0
    learning_rate: float = 4e-4
    beta: float = 4.0  # temperature of the log-ratio, in nats
    nothing: float = 0.25  # s, the share of the reference that has seen nothing of the prompt
    across: float = 1.0  # weight of the comparisons between the two prompts of a reply
    rank: int = 16
    couples: int = 4  # of a batch
    seed: int = 0


class Study(NamedTuple):
    """The model in memory, and where its frozen log-probabilities are kept."""

    words: ChatTokenizer
    model: BaseModel
    lora: LoraConfig
    execution: Execution
    frozen: "Frozen"


class Asked(NamedTuple):
    """A question as rows: at its prompt, and without it."""

    question: Question
    row: Row
    reference: np.ndarray  # [2] float32: of both replies, in nats


def open_study(folder: Path, out: Path, rank: int, dtype: Any) -> Study:
    """Reads the model; `dtype` is what it computes in."""
    lora, execution = LoraConfig(rank, 2.0 * rank), Execution(compute_dtype=dtype, remat="none")
    model = open_model(
        folder, make_mesh(MeshConfig()), lora=lora, execution=execution, dtype="float32"
    )
    plain = split(abstract(model.config, None, execution)).graphdef
    frozen = Frozen(out / f"frozen-{dtype}.jsonl", plain, model.base)
    return Study(known_tokenizer(folder), model, lora, execution, frozen)


class Frozen:
    """The frozen model's log-probabilities of rows, computed once and kept in a file."""

    def __init__(self, path: Path, graphdef: Any, base: Tree):
        self.path, self.graphdef, self.base = path, graphdef, base
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, list[float]] = dict(json.loads(line) for line in lines)

    def of(self, rows: Sequence[Row], size: int = 16) -> np.ndarray:
        """`[n, 2]`: of both replies of each row, in nats."""
        missing = {row_key(row): row for row in rows if row_key(row) not in self.known}
        trained = most_trained(missing.values())
        for part, width in batches_by_width(list(missing.values()), size):
            start = time.perf_counter()
            batch = laid_batch(part, width, size)
            found = np.asarray(_frozen(self.base, batch, self.graphdef, trained[width]))
            lines = [
                [row_key(row), values.tolist()] for row, values in zip(part, found, strict=False)
            ]
            with self.path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            self.known |= dict(lines)
            speed = sum(row.length for row in part) / (time.perf_counter() - start)
            print(f"frozen: {len(self.known)} rows known, {speed:.0f} tokens/s", flush=True)
        return np.asarray([self.known[row_key(row)] for row in rows], np.float32)


@partial(jax.jit, static_argnames=("graphdef", "trained"))
def _frozen(base: Tree, batch: Batch, graphdef: Any, trained: int) -> Array:
    return log_probs(graphdef, batch, trained, base)


def log_probs(graphdef: Any, batch: Batch, trained: int, *params: Tree) -> Float[Array, "B K"]:
    """The log-probability of each reply in nats."""
    return row_values(graphdef, batch, trained, *params)[0]


def row_values(graphdef: Any, batch: Batch, trained: int, *params: Tree) -> tuple[Array, Array]:
    """Log-probabilities `[B, K]`, and the last states `[B, K, D]` of both replies in float32."""
    model = merge(graphdef, *params)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments)
    scores = score_tokens(model.scorer(), hidden, batch.targets, batch.mask, trained, trained)
    own = batch.segments[:, None] == jnp.arange(1, K + 1)[None, :, None]
    last = (own & last_tokens(batch.segments)[:, None]).astype(jnp.float32)
    states = jnp.einsum("bkt,btd->bkd", last, hidden.astype(jnp.float32))
    return (scores.log_probs[:, None] * own).sum(axis=2), states


def asked(study: Study, questions: Sequence[Question], nothing: float) -> list[Asked]:
    """Questions with their rows and references."""
    rows = [laid_row(one.pair.prompt, one.replies, study.words) for one in questions]
    reference = (1 - nothing) * frozen_of(study, questions, last_turn)
    if nothing:
        reference += nothing * frozen_of(study, questions, lambda prompt: NOTHING)
    return [Asked(*one) for one in zip(questions, rows, reference, strict=True)]


def last_turn(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """A prompt without its conditions and history."""
    return prompt[-1:]


def whole(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt itself."""
    return prompt


def frozen_of(
    study: Study, questions: Sequence[Question], of: Callable[..., tuple[Message, ...]]
) -> np.ndarray:
    """`[n, 2]`: the frozen log-probabilities of both replies at `of(prompt)`."""
    rows = [laid_row(of(one.pair.prompt), one.replies, study.words) for one in questions]
    return study.frozen.of(rows)


def batches_by_width(rows: Sequence[Row], size: int) -> Iterable[tuple[list[Row], int]]:
    """Rows of one width together, the shortest first."""
    by_width: dict[int, list[Row]] = {}
    for row in rows:
        by_width.setdefault(width_of(row.length), []).append(row)
    for width, own in sorted(by_width.items()):
        for start in range(0, len(own), size):
            yield own[start : start + size], width


class Couple(NamedTuple):
    """Two rows that are trained together: of a crossing both its prompts."""

    asked: tuple[Asked, Asked]
    width: int
    crossed: bool


def couples_of(found: Sequence[Asked]) -> list[Couple]:
    """Crossings as couples, and single questions two by two, those of like length together."""
    by_name: dict[str, list[Asked]] = {}
    for one in found:
        by_name.setdefault(one.question.couple, []).append(one)
    single = sorted((own[0] for own in by_name.values() if len(own) == 1), key=_length)
    pairs = [(own[0], own[1], True) for own in by_name.values() if len(own) == 2]
    pairs += [(one, other, False) for one, other in zip(single[::2], single[1::2], strict=False)]
    return [
        Couple((one, other), width_of(max(_length(one), _length(other))), crossed)
        for one, other, crossed in pairs
    ]


def _length(one: Asked) -> int:
    return one.row.length


class Program(NamedTuple):
    """The step and the scores of a method, compiled once for each width."""

    step: Callable[..., Any]
    scores: Callable[..., Any]
    optimizer: optax.GradientTransformation


class Trained(NamedTuple):
    """What a run computes with."""

    params: Tree
    frozen: Tree


def begin(study: Study, method: Method) -> Trained:
    """A fresh adapter, and a head that begins small and random."""
    parts: Partition = trainable_and_frozen(study.model, study.lora, study.execution, method.seed)
    width = study.model.config.width
    head = 0.02 * jax.random.normal(jax.random.key(method.seed), (width, 1))
    return Trained({"adapter": parts.trainable, "head": head}, parts.frozen)


def program(study: Study, method: Method, steps: int) -> Program:
    """Adam, clipped, warmed up over a tenth of the steps, cosine to a tenth."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, method.learning_rate, max(1, steps // 10), max(2, steps), 0.1 * method.learning_rate
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def rewards(params: Tree, frozen: Tree, batch: Batch, reference: Array, trained: int) -> Array:
        values, states = row_values(study.model.graphdef, batch, trained, params["adapter"], frozen)
        if method.kind == "head":
            return (states @ params["head"])[..., 0]
        return (values - reference) / method.beta

    def loss(params: Tree, frozen: Tree, batch: "Laid", trained: int) -> tuple[Array, Array]:
        found = rewards(params, frozen, batch.rows, batch.reference, trained)
        return bradley_terry(found.reshape(-1, 2, K), batch, method.across)

    @partial(jax.jit, static_argnames="trained", donate_argnums=(0, 1))
    def step(params: Tree, state: Any, frozen: Tree, batch: "Laid", trained: int) -> Any:
        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(
            params, frozen, batch, trained
        )
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value, right

    return Program(step, jax.jit(rewards, static_argnames="trained"), optimizer)


class Laid(NamedTuple):
    """A batch of couples: rows `2 c` and `2 c + 1` are of couple `c`."""

    rows: Batch
    reference: Array  # [2 C, 2]
    weight: Array  # [C]; 0 of padding
    crossed: Array  # [C]


def bradley_terry(r: Float[Array, "C 2 K"], batch: Laid, across: float) -> tuple[Array, Array]:
    """The loss per comparison in nats, and the share of questions that are right.

    `r[c, i]` are the right and the wrong reply at prompt `i` of couple `c`. Of a crossing the right
    one at one prompt is the wrong one at the other: `r[c, 0, 0]` should also exceed `r[c, 1, 1]`.
    """
    here = jax.nn.softplus(r[:, :, 1] - r[:, :, 0])
    there = jax.nn.softplus(r[:, ::-1, 1] - r[:, :, 0]) * batch.crossed[:, None]
    each = (here + across * there).sum(axis=1)
    count = 2 * (1 + across * batch.crossed)
    right = 0.5 * (1 + jnp.sign(r[:, :, 0] - r[:, :, 1])).mean(axis=1)
    total = jnp.maximum(batch.weight.sum(), 1)
    return (each * batch.weight).sum() / (count * batch.weight).sum(), (
        right * batch.weight
    ).sum() / total


def laid(couples: Sequence[Couple], size: int) -> Laid:
    """A batch of couples of one width."""
    rows = [one.row for couple in couples for one in couple.asked]
    reference = np.zeros((2 * size, K), np.float32)
    for at, one in enumerate(one for couple in couples for one in couple.asked):
        reference[at] = one.reference
    weight, crossed = np.zeros((2, size), np.float32)
    weight[: len(couples)] = 1
    crossed[: len(couples)] = [couple.crossed for couple in couples]
    return Laid(laid_batch(rows, couples[0].width, 2 * size), reference, weight, crossed)


def epochs(couples: Sequence[Couple], size: int, seed: int) -> Iterable[list[Couple]]:
    """Batches without end: of one width each, dealt anew each epoch."""
    random = np.random.default_rng(seed)
    while True:
        dealt: list[list[Couple]] = []
        for width in sorted({couple.width for couple in couples}):
            own = [couple for couple in couples if couple.width == width]
            own = [own[at] for at in random.permutation(len(own))]
            dealt += [own[start : start + size] for start in range(0, len(own), size)]
        yield from (dealt[at] for at in random.permutation(len(dealt)))


def train(study: Study, method: Method, found: Sequence[Asked], state: Path) -> Trained:
    """A run from its beginning, or from where `state`, its last checkpoint, was written."""
    couples = couples_of(found)
    per_epoch = sum(1 for _ in _one_epoch(couples, method.couples))
    steps = max(1, round(method.epochs * per_epoch))
    run, began = program(study, method, steps), begin(study, method)
    params, held = began.params, run.optimizer.init(began.params)
    trained = most_trained(one.row for one in found)
    done, (params, held) = _restored(state, (params, held))
    start, tokens, log = time.perf_counter(), 0, []
    for number, batch in enumerate(epochs(couples, method.couples, method.seed)):
        if number >= steps:
            break
        if number < done:
            continue
        params, held, value, right = run.step(
            params, held, began.frozen, laid(batch, method.couples), trained=trained[batch[0].width]
        )
        log.append((float(value), float(right)))
        tokens += sum(one.row.length for couple in batch for one in couple.asked)
        if (number + 1) % 20 == 0 or number + 1 == steps:
            loss, share = np.mean(log[-20:], axis=0)
            speed = tokens / (time.perf_counter() - start)
            print(
                f"{state.stem}: {number + 1}/{steps} loss {loss:.3f} right {share:.3f} "
                f"{speed:.0f} tokens/s",
                flush=True,
            )
            _save(state, number + 1, (params, held))
    return Trained(params, began.frozen)


def margins(study: Study, method: Method, run: Trained, found: Sequence[Asked]) -> np.ndarray:
    """`[n, 2]`: the rewards of the right and the wrong reply of each question."""
    rewards, trained = program(study, method, 1).scores, most_trained(one.row for one in found)
    by_row = {row_key(one.row): at for at, one in enumerate(found)}
    rows = {row_key(one.row): one.row for one in found}
    values = np.zeros((len(found), K))
    size = 2 * method.couples
    for part, width in batches_by_width(list(rows.values()), size):
        reference = np.zeros((size, K), np.float32)
        for at, row in enumerate(part):
            reference[at] = found[by_row[row_key(row)]].reference
        scores = rewards(run.params, run.frozen, laid_batch(part, width, size), reference,
                         trained=trained[width])  # fmt: skip
        for row, value in zip(part, np.asarray(scores), strict=False):
            values[by_row[row_key(row)]] = value
    return values


def _one_epoch(couples: Sequence[Couple], size: int) -> Iterable[int]:
    for width in {couple.width for couple in couples}:
        own = sum(couple.width == width for couple in couples)
        yield from range(0, own, size)


def most_trained(rows: Iterable[Row]) -> dict[int, int]:
    """The most positions that a row of each width trains, rounded up: programs are made for it."""
    found = dict.fromkeys(WIDTHS, 16)
    for row in rows:
        width = width_of(row.length)
        found[width] = max(found[width], -(-row.trained // 16) * 16)
    # A couple is as wide as the longer of its rows.
    return dict(zip(WIDTHS, itertools.accumulate(found.values(), max), strict=True))


def _save(path: Path, step: int, tree: Any) -> None:
    leaves = {str(at): np.asarray(leaf) for at, leaf in enumerate(jax.tree.leaves(tree))}
    staged = path.with_suffix(".tmp.npz")
    np.savez(staged, step=step, **leaves)
    staged.replace(path)


def _restored(path: Path, tree: Any) -> tuple[int, Any]:
    if not path.exists():
        return 0, tree
    kept = np.load(path)
    leaves, structure = jax.tree.flatten(tree)
    new = [jnp.asarray(kept[str(at)]) for at in range(len(leaves))]
    return int(kept["step"]), jax.tree.unflatten(structure, new)


def write_result(path: Path, found: Sequence[Asked], values: np.ndarray, more: dict) -> None:
    """The rewards of a run's test questions, by id."""
    rewards = {
        one.question.pair.id: [round(float(x), 5) for x in value]
        for one, value in zip(found, values, strict=True)
    }
    write_json(path, {**more, "rewards": rewards})

"""What every curriculum shares: its settings, what it remembers, how a task is adapted to."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Num

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import BelowOne, Count, Positive, UpToOne, check_ranges
from hen_jax.core.types import Array, Batch, Mean, Tree
from hen_jax.data.episodes import Episode
from hen_jax.meta.gradients import GradientMode, OuterLoss
from hen_jax.meta.inner import InnerLoop
from hen_jax.meta.losses import mean_loss
from hen_jax.meta.symmetry import require_symmetric
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics

Curriculum = Literal[
    "emcl_a",
    "emcl_b",
    "emcl_c",
    "reweight",
    "uniform",
    "easy_to_hard",
    "hard_to_easy",
    "random",
    "sft",
]

EpisodeStep = Callable[[State, Tree, Episode], tuple[State, Metrics]]


@dataclasses.dataclass(frozen=True)
class EmclConfig:
    """How the order of tasks is found and what an outer update is; the defaults are the paper's
    kin (NLP2CT, DataRater), as the paper itself publishes none.

    | `curriculum`   | order of the tasks                       | outer update                     |
    |----------------|------------------------------------------|----------------------------------|
    | `emcl_a`       | by difficulty after adaptation           | per active task, easy to hard    |
    | `emcl_b`       | SoftSort scores, trained by the unroll   | one through the ordered training |
    | `emcl_c`       | none: a scorer weighs the examples       | one through the weighted training|
    | `reweight`     | by learnt onsets; it learns amounts      | one, weighted (`reweight`)       |
    | `uniform`      | none                                     | one, the mean over the tasks     |
    | `easy_to_hard` | as the tasks are listed                  | per active task                  |
    | `hard_to_easy` | the reverse                              | per active task                  |
    | `random`       | drawn anew at each step                  | per active task                  |
    | `sft`          | none                                     | one, without inner training      |

    Raises:
      InputError: a field is out of range, or a mode that gives the curriculum no gradient.
    """

    curriculum: Curriculum = "emcl_a"  # see `hen_jax.curricula.shared.EmclConfig`
    mode: GradientMode = "mixflow"  # of the meta-gradient: see docs/meta.md
    inner_steps: Count = 2  # K, on the support of one task
    inner_optimizer: Literal["sgd", "adam"] = "sgd"  # of the inner steps
    inner_learning_rate: Positive = 5e-5  # alpha
    initial_competence: UpToOne = 0.1  # c0; 1 shows all tasks from the start
    smoothing: BelowOne = 0.9  # rho, of the difficulty
    difficulty: Literal["fresh", "visited"] = "fresh"  # emcl_a: see `hen_jax.curricula.emcl`
    temperature: Positive = 0.1  # emcl_b: of SoftSort
    sharing: Count | None = None  # emcl_b: most tasks at one place; None: all
    learnt_rate: Positive = 0.03  # emcl_b, emcl_c: of Adam on the scores or the scorer
    carry: bool = False  # not of uniform, sft: inner steps train, see `hen_jax.curricula.emcl`
    scorer_width: Count = 16  # emcl_c, reweight: hidden units
    bound: Positive = 4.0  # reweight: of the logits of weights
    floor: BelowOne = 0.05  # reweight: the least weight, in shares of the mean
    query_trains: bool = True  # reweight by first_order: held-out rows are trained on as well
    parallel_tasks: bool = True  # measure tasks side by side, not one after another

    def __post_init__(self):
        check_ranges(self)
        if self.mode not in get_args(GradientMode):
            raise InputError(f"mode is {self.mode!r}; allowed: {', '.join(get_args(GradientMode))}")
        learns = self.curriculum in ("emcl_b", "emcl_c", "reweight")
        modes = ["mixflow", "unroll"] + ["first_order"] * (self.curriculum == "reweight")
        if learns and self.mode not in modes:
            raise InputError(
                f"mode is {self.mode!r}, which gives it no gradient: {self.curriculum} learns "
                f"through the unrolled training; use {' or '.join(map(repr, modes))}"
            )


class CurriculumMemory(NamedTuple):
    """The `memory` of a run's `State`: what a curriculum carries from step to step."""

    difficulty: Float[Array, "tasks"]  # running mean of the query loss after adaptation
    eta: Tree  # scores or scorer; {} where none is learnt
    eta_state: optax.OptState
    visits: Tree = ()  # reweight: what it remembers of each example


def learner(config: EmclConfig) -> optax.GradientTransformation:
    """The optimizer of what the curriculum learns."""
    return optax.adam(config.learnt_rate)


def task_loss(loss: Loss, frozen: Tree) -> OuterLoss:
    """The loss of one task's batch as a scalar, `(theta, eta, batch)`; `eta` is not read."""
    return mean_loss(lambda theta, _, batch: loss(theta, frozen, batch))


def inner_optimizer(config: EmclConfig) -> optax.GradientTransformation:
    """Gradient descent, or Adam with a derivative where a gradient is zero."""
    if config.inner_optimizer == "sgd":
        return optax.sgd(config.inner_learning_rate)
    return optax.adam(config.inner_learning_rate, eps_root=1e-8)


def adaptation(config: EmclConfig, loss: Loss, frozen: Tree) -> InnerLoop:
    """`K` steps on the support of one task."""
    return InnerLoop(task_loss(loss, frozen), inner_optimizer(config), config.inner_steps)


def adapted_loss(
    config: EmclConfig, loss: Loss, frozen: Tree
) -> Callable[[Tree, Batch, Batch], Array]:
    """`(theta, support, query) ->` the query loss after adaptation to the support: difficulty."""
    inner, after = adaptation(config, loss, frozen), task_loss(loss, frozen)

    def measure(theta: Tree, support: Batch, query: Batch) -> Array:
        return after(inner(theta, None, support, rule="first_order").theta, None, query)

    return measure


def require_gradient(
    config: EmclConfig, loss: Loss, params: Tree, frozen: Tree, draw: Callable[[], Episode]
) -> None:
    """Raises `InputError` where `config.mode` would be wrong for `loss`; see `require_symmetric`.

    Call it once before the first step. Looks at the first task's first support batch of an episode,
    if the mode asks for it.
    """
    if config.curriculum == "sft" or config.mode not in ("mixflow", "implicit"):
        return
    support = draw().support

    # What is frozen is an argument: a program that closes over a base would hold a copy of it.
    def of_weights(theta: Tree, weight: Array, given: tuple[Tree, Batch]) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[0, 0], given[1])._replace(weight=weight)
        return task_loss(loss, given[0])(theta, None, batch)

    weight = np.ones(support.tokens.shape[2], np.float32)
    require_symmetric(of_weights, params, weight, (frozen, support))


def over_tasks(config: EmclConfig, function: Callable, theta: Tree, episode: Episode) -> Tree:
    """`function(theta, support, query)` of every task, its results stacked."""
    if config.parallel_tasks:
        return jax.vmap(function, in_axes=(None, 0, 0))(theta, *episode)
    return jax.lax.map(lambda task: function(theta, *task), tuple(episode))


def flat(batch: Batch, leading: int) -> Batch:
    """The rows of a batch whose fields have `leading` axes before a row's own."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[leading:]), batch)


def evaluation(
    config: EmclConfig, loss: Loss, tasks: tuple[str, ...]
) -> Callable[[Tree, Tree, Episode], tuple[Mean, Metrics]]:
    """`(params, frozen, episode) ->` the loss after adaptation, the mean over tasks of each's own.

    Metrics: `loss/TASK` after adaptation, `before` and `before/TASK` without it.
    """

    def evaluate(params: Tree, frozen: Tree, episode: Episode) -> tuple[Mean, Metrics]:
        measure, plain = adapted_loss(config, loss, frozen), task_loss(loss, frozen)

        def both(theta: Tree, support: Batch, query: Batch) -> tuple[Array, Array]:
            return measure(theta, support, query), plain(theta, None, query)

        after, before = over_tasks(config, both, params, episode)
        metrics = per_task("loss", after, tasks) | per_task("before", before, tasks)
        return mean_of(after), metrics | {"before": mean_of(before)}

    return evaluate


def per_task(name: str, values: Num[Array, "tasks"], tasks: tuple[str, ...]) -> Metrics:
    """`{"name/TASK": value}` as metrics."""
    return {f"{name}/{task}": single(value) for task, value in zip(tasks, values, strict=True)}


def single(value: Array) -> Mean:
    """One number as a metric."""
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def mean_of(values: Float[Array, "tasks"]) -> Mean:
    """The mean over tasks as a metric."""
    return Mean(values.sum(), jnp.asarray(len(values), jnp.float32))

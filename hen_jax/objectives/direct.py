"""Direct preference objectives: a policy fitted to preferences without a reward model.

Notation, of one reply to one prompt: `l` its log-probability in nats, summed over its `n` tokens
(the end of the turn included), `l_ref` that under the reference policy, `h = l - l_ref`. `+` and
`-` are the preferred reply and the other, `s` the logistic function, `b` is `beta`, `e` is
`smoothing`. All losses are in nats (`ipo` and `hinge` have no unit), one per pair; with a reply of
no tokens (`n = 0`) they are finite. What each reads, its published values and its value where the
policy is the reference stand in `OBJECTIVES`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from hen_jax.core.types import Array


class Side(NamedTuple):
    """One side of each pair."""

    policy: Float[Array, "*P"]  # l
    reference: Float[Array, "*P"]  # l_ref; of an objective without a reference, anything
    length: Float[Array, "*P"]  # n; where turns have weights, the sum of the tokens' weights

    @property
    def ratio(self) -> Array:
        """`h`: how much likelier than under the reference, in nats."""
        return self.policy - self.reference

    def per_token(self, x: Array) -> Array:
        """`x / n`, and 0 where there is no token."""
        return jnp.where(self.length > 0, x / jnp.where(self.length > 0, self.length, 1.0), 0.0)


class Values(NamedTuple):
    """The numbers of an objective; those that it does not read stand at what changes nothing."""

    beta: float = 1.0  # b: the temperature of DPO, tau of IPO, lambda of ORPO
    margin: float = 0.0  # gamma of SimPO
    smoothing: float = 0.0  # e: the share of labels taken to be wrong
    tail: float = 1.0  # alpha of LD-DPO: what a token past the shorter reply's end counts for
    sft: float = 0.0  # weight of the chosen reply's cross-entropy
    desirable: float = 1.0  # lambda_D of KTO
    undesirable: float = 1.0  # lambda_U of KTO


PairLoss = Callable[[Side, Side, Values], Float[Array, "*P"]]
"""`loss(chosen, rejected, values)`."""


def sigmoid_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`-(1 - e) log s(b d) - e log s(-b d)`, `d = h+ - h-`.

    DPO (Rafailov et al., 2023); with `e` cDPO (Mitchell, 2023). LD-DPO (Liu et al., 2024) is the
    same on sums in which tokens past the length of the shorter reply count `values.tail`.
    """
    return _smoothed(values.beta * (chosen.ratio - rejected.ratio), values.smoothing)


def robust_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`(-(1 - e) log s(b d) + e log s(-b d)) / (1 - 2 e)` (Chowdhury et al., 2024).

    Unbiased where a share `e` of the labels is wrong, and without a lower bound.
    """
    logit, e = values.beta * (chosen.ratio - rejected.ratio), values.smoothing
    right, wrong = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return (e * wrong - (1 - e) * right) / (1 - 2 * e)


def hinge_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`max(0, 1 - b d)` (Zhao et al., 2023; Liu et al., 2023)."""
    return jax.nn.relu(1 - values.beta * (chosen.ratio - rejected.ratio))


def ipo_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`(h+ / n+ - h- / n- - 1 / (2 b))^2` (Azar et al., 2023), by tokens as its authors confirm."""
    gap = chosen.per_token(chosen.ratio) - rejected.per_token(rejected.ratio)
    return (gap - 1 / (2 * values.beta)) ** 2


def exo_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`KL(q || p)` of `q = (s(b d), s(-b d))` and `p = (1 - e, e)` (Ji et al., 2024)."""
    logit, e = values.beta * (chosen.ratio - rejected.ratio), values.smoothing
    right = jax.nn.sigmoid(logit) * (jax.nn.log_sigmoid(logit) - math.log1p(-e))
    return right + jax.nn.sigmoid(-logit) * (jax.nn.log_sigmoid(-logit) - math.log(e))


def normalised_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`-log s(b (h+ / n+ - h- / n-))`: length-normalised DPO (Lambert et al., 2024)."""
    gap = chosen.per_token(chosen.ratio) - rejected.per_token(rejected.ratio)
    return -jax.nn.log_sigmoid(values.beta * gap)


def simpo_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`-log s(b (l+ / n+ - l- / n-) - gamma)` (Meng et al., 2024); gamma is not times b."""
    gap = chosen.per_token(chosen.policy) - rejected.per_token(rejected.policy)
    return -jax.nn.log_sigmoid(values.beta * gap - values.margin)


def cpo_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`-log s(b (l+ - l-))`, on sums (Xu et al., 2024)."""
    return -jax.nn.log_sigmoid(values.beta * (chosen.policy - rejected.policy))


def orpo_loss(chosen: Side, rejected: Side, values: Values) -> Array:
    """`-b log s(o+ - o-)`, `o` the log odds of the mean log-probability (Hong et al., 2024)."""
    odds = [_log_odds(side.per_token(side.policy)) for side in (chosen, rejected)]
    return -values.beta * jax.nn.log_sigmoid(odds[0] - odds[1])


def kto_losses(
    ratio: Float[Array, "*P"], baseline: Float[Array, "*#P"], values: Values
) -> tuple[Float[Array, "*P"], Float[Array, "*P"]]:
    """The loss of each reply if people wanted it, and if they did not (Ethayarajh et al., 2024).

    `lambda_D (1 - s(b (h - z0)))` and `lambda_U (1 - s(b (z0 - h)))`. `baseline` is z0 of
    `kto_baseline`, over the whole batch, and has no gradient.
    """
    logit = values.beta * (ratio - jax.lax.stop_gradient(baseline))
    wanted, unwanted = 1 - jax.nn.sigmoid(logit), 1 - jax.nn.sigmoid(-logit)
    return values.desirable * wanted, values.undesirable * unwanted


def kto_baseline(total: Float[Array, "*G"], count: Float[Array, "*G"]) -> Float[Array, "*G"]:
    """z0 = max(0, mean of `h` over replies behind other prompts): an estimate of the KL divergence
    of policy and reference, from the sum and the number of such replies."""
    return jnp.maximum(total / jnp.maximum(count, 1.0), 0.0)


LEAST = 1e-6
"""A mean log-probability nearer to 0 counts as this: the odds of what is certain are infinite."""


def log1mexp(x: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """`log(1 - exp(x))` for `x < 0` (Maechler, 2012): each branch where it loses no digits.

    Every branch sees arguments of its own range, as a gradient of infinity times 0 would be NaN.
    """
    near = x > -math.log(2)
    close, far = jnp.where(near, x, -1.0), jnp.where(near, -1.0, x)
    return jnp.where(near, jnp.log(-jnp.expm1(close)), jnp.log1p(-jnp.exp(far)))


def _log_odds(mean: Array) -> Array:
    mean = jnp.minimum(mean, -LEAST)
    return mean - log1mexp(mean)


def _smoothed(logit: Array, e: float) -> Array:
    plain = -jax.nn.log_sigmoid(logit)
    return (1 - e) * plain - e * jax.nn.log_sigmoid(-logit) if e else plain


def _by_ratio(side: Side, values: Values) -> Array:
    return values.beta * side.ratio


def _by_mean_ratio(side: Side, values: Values) -> Array:
    return values.beta * side.per_token(side.ratio)


def _by_policy(side: Side, values: Values) -> Array:
    return values.beta * side.policy


def _by_mean(side: Side, values: Values) -> Array:
    return values.beta * side.per_token(side.policy)


class Objective(NamedTuple):
    """One row of the table of objectives."""

    loss: PairLoss | None  # None: of replies and not of pairs (KTO)
    reward: Callable[[Side, Values], Array]  # the implicit reward, by which the loss orders replies
    published: Mapping[str, float]  # values of its paper; it reads those fields and no others
    start: (
        Callable[[Values], float] | None
    )  # the loss at policy = reference; None: has no reference


def _ln2(values: Values) -> float:
    return math.log(2)


def _exo_start(values: Values) -> float:
    e = values.smoothing
    return -math.log(2) - 0.5 * (math.log1p(-e) + math.log(e))


OBJECTIVES: dict[str, Objective] = {
    "dpo": Objective(sigmoid_loss, _by_ratio, {"beta": 0.1}, _ln2),
    "cdpo": Objective(sigmoid_loss, _by_ratio, {"beta": 0.1, "smoothing": 0.1}, _ln2),
    "robust": Objective(robust_loss, _by_ratio, {"beta": 0.1, "smoothing": 0.1}, _ln2),
    "hinge": Objective(hinge_loss, _by_ratio, {"beta": 0.1}, lambda values: 1.0),
    "ipo": Objective(
        ipo_loss, _by_mean_ratio, {"beta": 0.1}, lambda values: 1 / (2 * values.beta) ** 2
    ),
    "exo": Objective(exo_loss, _by_ratio, {"beta": 0.1, "smoothing": 1e-3}, _exo_start),
    "dpo_norm": Objective(normalised_loss, _by_mean_ratio, {"beta": 5.0}, _ln2),
    "ld_dpo": Objective(sigmoid_loss, _by_ratio, {"beta": 0.1, "tail": 0.5}, _ln2),
    "simpo": Objective(simpo_loss, _by_mean, {"beta": 2.5, "margin": 1.375}, None),
    "cpo": Objective(cpo_loss, _by_policy, {"beta": 0.1, "sft": 1.0}, None),
    "orpo": Objective(orpo_loss, _by_mean, {"beta": 0.1, "sft": 1.0}, None),
    "kto": Objective(
        None,
        _by_ratio,
        {"beta": 0.1, "desirable": 1.0, "undesirable": 1.0},
        lambda values: 0.5,  # times the mean of lambda_D and lambda_U over the replies
    ),
}
"""`sft` may be given to any of them; it is 0 where it does not stand."""

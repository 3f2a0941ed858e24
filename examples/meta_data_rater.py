# %% [markdown]
# # A scorer of training examples
#
# In the manner of DataRater (Calian et al., arXiv 2505.17895): a small network scores each example,
# the softmax of the scores over the batch weighs the inner gradient, and the scorer is trained
# through two inner updates on the loss of held-out data. Here half of the training targets are
# corrupted, more so the larger a visible feature of the example (think of a page's quality): the
# scorer never sees which, and must find out.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop
from hen_jax.meta.losses import weighted

DIMENSIONS, ROWS, STEPS = 8, 64, 2
truth = jax.random.normal(jax.random.key(0), (DIMENSIONS,))


def draw(key, rows, corrupted):
    """Rows `x`, visible features `mark` (only the first matters) and targets `y`."""
    x, mark, bad, noise = jax.random.split(key, 4)
    x = jax.random.normal(x, (*rows, DIMENSIONS))
    bad = jax.random.bernoulli(bad, corrupted, rows)
    mark = jax.random.normal(mark, (*rows, 3)).at[..., 0].add(jnp.where(bad, 1.5, -1.5))
    noise = jax.random.normal(noise, rows) * jnp.where(bad, 5.0, 0.1)
    return {"x": x, "mark": mark, "y": x @ truth + noise}, bad


def per_example(theta, batch):
    return (batch["x"] @ theta - batch["y"]) ** 2


def score(eta, batch):
    return (jax.nn.tanh(batch["mark"] @ eta["in"]) @ eta["out"])[..., 0]


# %% [markdown]
# The scorer is `eta`; a fresh inner model at each meta-step; the global norm of the meta-gradient
# clipped, as in the paper.

# %%
inner = InnerLoop(
    weighted(per_example, lambda eta, batch: jax.nn.softmax(score(eta, batch))),
    optax.adam(0.1, eps_root=1e-8),
    STEPS,
)
meta = meta_gradient(inner, lambda theta, eta, batch: jnp.mean(per_example(theta, batch)))
outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-2))


def meta_step(carry, key):
    eta, state = carry
    start, batches, query = jax.random.split(key, 3)
    theta = truth + 0.3 * jax.random.normal(start, (DIMENSIONS,))
    batches, _ = draw(batches, (STEPS, ROWS), 0.5)
    query, _ = draw(query, (ROWS,), 0.0)
    found = meta(theta, eta, batches, query)
    updates, state = outer.update(found.eta, state)
    return (optax.apply_updates(eta, updates), state), found.value


eta = {
    "in": 0.5 * jax.random.normal(jax.random.key(1), (3, 16)),
    "out": 0.1 * jax.random.normal(jax.random.key(2), (16, 1)),
}
keys = jax.random.split(jax.random.key(3), 300)
(eta, _), losses = jax.jit(lambda: jax.lax.scan(meta_step, (eta, outer.init(eta)), keys))()

# %% [markdown]
# How often does the scorer put a sound example above a corrupted one? (The area under the ROC.)

# %%
fresh, bad = draw(jax.random.key(4), (1000,), 0.5)
scores, bad = np.asarray(score(eta, fresh)), np.asarray(bad)
auc = np.mean(scores[~bad][:, None] > scores[bad][None, :])
print(f"held-out loss: {losses[:50].mean():.3f} -> {losses[-50:].mean():.3f}; AUC {auc:.3f}")
assert losses[-50:].mean() < 0.9 * losses[:50].mean()
assert auc > 0.95

# %% [markdown]
# # The derivative of a training run with respect to its learning rates
#
# A linear model whose two inputs have very different scales: no single learning rate suits both
# weights. We differentiate the loss after ten training steps with respect to the logarithm of a
# learning rate per tensor, and descend on it.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop, descend

generator = np.random.default_rng(0)
small, large = generator.normal(size=(64,)), 10 * generator.normal(size=(64,))
batch = {"small": small, "large": large, "y": 2 * small - 0.3 * large}


def loss(theta, log_rates, batch):
    prediction = sum(theta[name] * batch[name] for name in theta)
    return jnp.mean((prediction - batch["y"]) ** 2)


# %% [markdown]
# Five lines: the inner loop, with rates that come from the outer variable `eta`; its gradient; and
# the outer optimizer.

# %%
inner = InnerLoop(loss, lambda eta: descend(jax.tree.map(jnp.exp, eta)), steps=10, repeat=True)
meta = jax.jit(meta_gradient(inner, loss))
theta = {"small": jnp.float32(0), "large": jnp.float32(0)}
log_rates = dict.fromkeys(theta, jnp.log(1e-3))
outer = optax.adam(0.2)
state = outer.init(log_rates)

history = []
for _ in range(60):
    found = meta(theta, log_rates, batch, batch)
    updates, state = outer.update(found.eta, state)
    log_rates = optax.apply_updates(log_rates, updates)
    history.append(float(found.value))

# %% [markdown]
# On this quadratic the best rate of a weight is about half the inverse of the mean square of its
# input, so the rate of the small input must end up well above that of the large one.

# %%
rates = jax.tree.map(lambda log_rate: float(jnp.exp(log_rate)), log_rates)
print(f"loss after 10 steps: {history[0]:.4f} -> {history[-1]:.6f}; rates {rates}")
assert history[-1] < 1e-2 * history[0]
assert rates["small"] > 20 * rates["large"]

# %% [markdown]
# # MAML on sinusoids
#
# Few-shot regression of Finn et al. (arXiv 1703.03400): each task is a sine of random amplitude and
# phase. We look for an initialisation from which one gradient step on ten points fits a new sine,
# and compare with an initialisation trained on all sines at once.

# %%
import jax
import jax.numpy as jnp
import optax

from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop


def predict(theta, x):
    h = jnp.tanh(x[:, None] @ theta["in"] + theta["bias"])
    return (jnp.tanh(h @ theta["mid"]) @ theta["out"])[:, 0]


def loss(theta, eta, batch):
    return jnp.mean((predict(theta, batch["x"]) - batch["y"]) ** 2)


def draw_tasks(key, tasks=16, points=10):
    """`tasks` pairs of a support and a query set of `points` points each."""
    amplitude, phase, x = jax.random.split(key, 3)
    amplitude = jax.random.uniform(amplitude, (tasks, 1, 1), minval=0.5, maxval=4.0)
    phase = jax.random.uniform(phase, (tasks, 1, 1), maxval=jnp.pi)
    x = jax.random.uniform(x, (tasks, 2, points), minval=-4.0, maxval=4.0)
    both = {"x": x, "y": amplitude * jnp.sin(x + phase)}
    return [jax.tree.map(lambda leaf, part=part: leaf[:, part], both) for part in (0, 1)]


keys = jax.random.split(jax.random.key(0), 3)
start = {
    "in": jax.random.normal(keys[0], (1, 40)),
    "bias": jnp.zeros(40),
    "mid": jax.random.normal(keys[1], (40, 40)) / 40**0.5,
    "out": jax.random.normal(keys[2], (40, 1)) / 40**0.5,
}

# %% [markdown]
# The meta-gradient of one task, then of many in parallel: `vmap` and a mean.

# %%
inner = InnerLoop(loss, optax.sgd(0.05), steps=1, repeat=True)
over_tasks = jax.vmap(meta_gradient(inner, loss), in_axes=(None, None, 0, 0))


def maml(theta, support, query):
    return jax.tree.map(lambda leaf: leaf.mean(0), over_tasks(theta, None, support, query).theta)


def joint(theta, support, query):
    return jax.grad(lambda theta: jax.vmap(loss, (None, None, 0))(theta, None, query).mean())(theta)


def train(gradient, steps=800):
    outer = optax.adam(3e-3)

    def step(carry, key):
        theta, state = carry
        updates, state = outer.update(gradient(theta, *draw_tasks(key)), state)
        return (optax.apply_updates(theta, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jax.jit(lambda: jax.lax.scan(step, (start, outer.init(start)), keys)[0][0])()


# %% [markdown]
# After one step on the support set of sines never seen:

# %%
support, query = draw_tasks(jax.random.key(2), tasks=500)
after = {
    name: float(jax.jit(over_tasks)(theta, None, support, query).value.mean())
    for name, theta in (("random", start), ("joint", train(joint)), ("maml", train(maml)))
}
print("query loss after one inner step:", after)
assert after["maml"] < 0.6 * after["joint"]
assert after["maml"] < 0.6 * after["random"]

# %% [markdown]
# # Learning to reweight noisy examples
#
# Ren et al., ICML 2018. Labels of positive examples are often wrong: 80 % of them say negative.
# (Noise that does not depend on the example would average out; this does not.) 50 examples are
# known to be clean. At each step every example of the batch gets the weight by which the loss of
# the clean set would like to see it: minus the meta-gradient with respect to weights that start at
# zero.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop
from hen_jax.meta.losses import rectified, weighted

DIMENSIONS, ROWS, CLEAN, STEPS = 5, 100, 50, 300
generator = np.random.default_rng(0)
truth = generator.normal(size=DIMENSIONS)


def draw(rows, flipped):
    x = generator.normal(size=(rows, DIMENSIONS)).astype("float32")
    x[:, 0] = 1  # the intercept
    label = (x @ truth > 0).astype("float32")
    flip = (label == 1) & (generator.random(rows) < flipped)
    return {"x": x, "y": np.where(flip, 1 - label, label)}, flip


train, flip = draw(STEPS * ROWS, 0.8)
clean, _ = draw(CLEAN, 0.0)
test, _ = draw(2000, 0.0)


def per_example(theta, batch):
    return optax.sigmoid_binary_cross_entropy(batch["x"] @ theta, batch["y"])


def clean_loss(theta, eta, batch):
    return jnp.mean(per_example(theta, batch))


# %% [markdown]
# The inner loop is one step of weighted training; the weights are the outer variable.

# %%
inner = InnerLoop(
    weighted(per_example, lambda eta, batch: eta), optax.sgd(0.1), steps=1, repeat=True
)
meta = meta_gradient(inner, clean_loss)


@jax.jit
def reweighted_step(theta, batch):
    weights = rectified(meta(theta, jnp.zeros(ROWS), batch, clean).eta)
    return inner(theta, weights, batch).theta, weights


@jax.jit
def uniform_step(theta, batch):
    return inner(theta, jnp.full(ROWS, 1 / ROWS), batch).theta


# %%
reweighted = uniform = jnp.zeros(DIMENSIONS)
on_flipped = []
for step in range(STEPS):
    rows = slice(step * ROWS, (step + 1) * ROWS)
    batch = {name: values[rows] for name, values in train.items()}
    reweighted, weights = reweighted_step(reweighted, batch)
    uniform = uniform_step(uniform, batch)
    on_flipped.append(float(weights[flip[rows]].sum()))


def accuracy(theta):
    return float(jnp.mean((test["x"] @ theta > 0) == (test["y"] > 0.5)))


weight, share = np.mean(on_flipped), flip.mean()
print(f"flipped: {share:.0%} of the examples, {weight:.0%} of the weight")
print(f"test accuracy: uniform {accuracy(uniform):.3f}, reweighted {accuracy(reweighted):.3f}")
assert weight < 0.5 * share
assert accuracy(reweighted) > accuracy(uniform) + 0.1

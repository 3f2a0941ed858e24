# %% [markdown]
# # hen_jax in a notebook
#
# A model, one step of fine-tuning, a meta-gradient, a reward and one step of GRPO, each in a few
# lines. Everything is a pure function of arrays: look into whatever you like, or change it.
# `SIZE = "tiny"` is a random model, to see that all works; `"smollm2"` is SmolLM2-135M, 92 MB.

# %%
SIZE = "tiny"

# %% [markdown]
# ## A model, and one step of fine-tuning
#
# `open_stage` reads a config as `hen run` does, and stops before the first update.

# %%
from hen_jax.verbs.run.opened import open_stage

sft = open_stage(f"sft:{SIZE}")
print(sft.job.model.config)
batch = sft.batch(sft.state)
state, metrics = sft.step(sft.state, sft.frozen, batch)
print({name: float(one.value) for name, one in metrics.items()})

# %% [markdown]
# ## A meta-gradient
#
# Two steps of descent on a batch; then how the loss on the next batch would change with the rate of
# each parameter. `mode` may also be `"unroll"`, `"first_order"`, `"reptile"` or `"implicit"`.

# %%
import jax
import jax.numpy as jnp

from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop, descend


def loss(theta, eta, batch):
    return sft.work.score(theta, sft.frozen, batch)[0].value


# %%
rates = jax.tree.map(lambda leaf: jnp.float32(0.01), state.params)
query = sft.batch(state)
inner = InnerLoop(loss, descend, steps=2, repeat=True)
meta = jax.jit(meta_gradient(inner, loss, mode="mixflow"))(state.params, rates, batch, query)
print("loss after two steps:", meta.value)
steepest = max(jax.tree_util.tree_leaves_with_path(meta.eta), key=lambda one: abs(one[1]))
print("what one rate would do:", jax.tree_util.keystr(steepest[0]), steepest[1])

# %% [markdown]
# ## A reward
#
# A reward model compares replies to one prompt. Before it has learnt anything its loss is ln 2.

# %%
reward = open_stage(f"reward:{SIZE}")
trained, metrics = reward.step(reward.state, reward.frozen, reward.batch(reward.state))
print({name: float(one.value) for name, one in metrics.items()})

# %% [markdown]
# A rule is a reward, too: any function of a prompt, a reply and its record.

# %%
from hen_jax.evaluation.reply_rules import length_band

brief = length_band(20, 80)
print(brief((), "That sounds like a long week. Come over, I'll cook.", {}))

# %% [markdown]
# ## One step of GRPO
#
# `batch` draws the replies, several to each prompt, and has them rewarded; `step` learns from what
# set them apart.

# %%
policy = open_stage(f"policy:{SIZE}", "data.batch_size=2", "rollout.replies=4")
rollout = policy.batch(policy.state)
print("rewards:", rollout.rewards)
learnt, metrics = policy.step(policy.state, policy.frozen, rollout)
print({name: float(one.value) for name, one in metrics.items()})

"""A meta-gradient on a mesh is the meta-gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from tiny_model import CONFIG, batch_of, documents, stirred

from hen_jax.core.mesh import BATCH, Layout, MeshConfig, make_mesh, replicated
from hen_jax.core.trees import map_with_path
from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop, descend
from hen_jax.meta.losses import mean_loss
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import Decoder, split
from hen_jax.steps.sft import sft_loss
from hen_jax.training.placement import parameter_shardings

STEPS, ROWS, LENGTH = 2, 8, 16
LORA = LoraConfig(rank=3, alpha=6.0, targets=("q", "down"))  # one along each way of sharding


def rows(seed):
    batch = batch_of([[document] for document in documents([9, 15, 12, 7] * 2, seed)], LENGTH)
    return batch._replace(task=jnp.arange(ROWS) % 2)


def meta_gradient_on(devices, mode="mixflow"):
    """With the adapter, the base and the rows where the rules put them on `data x fsdp`."""
    mesh = make_mesh(MeshConfig(data=-1, fsdp=min(4, len(devices))), devices)
    model = Decoder(jax.random.key(0), CONFIG, LORA, Execution(), Layout(mesh))
    where = parameter_shardings(model, mesh)
    graphdef, adapter, base = split(model)
    sft = sft_loss(graphdef)

    def step(theta, base, eta, batches, query):
        def weighted(theta, eta, batch):
            return sft(theta, base, batch._replace(weight=jax.nn.softmax(eta["tasks"])[batch.task]))

        inner = InnerLoop(
            mean_loss(weighted),
            lambda eta: optax.chain(optax.scale_by_adam(eps_root=1e-6), descend(eta["rates"])),
            STEPS,
        )
        outer = mean_loss(lambda theta, _, batch: sft(theta, base, batch))
        return meta_gradient(inner, outer, mode)(theta, eta, batches, query)

    def placed(tree):
        return map_with_path(lambda path, leaf: jax.device_put(leaf, where[path]), tree)

    def spread(batch, *leading):
        return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(*leading, BATCH)))

    theta = placed(stirred(adapter))
    eta = {
        "tasks": jnp.array([0.3, -0.2]),
        "rates": jax.tree.map(lambda _: jnp.float32(0.01), theta),
    }
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), rows(1), rows(2))
    eta = jax.device_put(eta, replicated(mesh))
    found = jax.jit(step)(theta, placed(base), eta, spread(batches, None), spread(rows(3)))
    return found, theta


def test_eight_devices_give_the_meta_gradient_of_one():
    alone, _ = meta_gradient_on(jax.devices()[:1])
    spread, theta = meta_gradient_on(jax.devices())
    a = spread.theta["blocks"]["attn"]["q"]["lora_a"]
    assert len(a.sharding.device_set) == 8
    # A gradient lives where its parameter lives: an outer optimizer needs no exchange.
    assert a.sharding.is_equivalent_to(theta["blocks"]["attn"]["q"]["lora_a"].sharding, a.ndim)
    assert not a.sharding.is_fully_replicated
    for name in ("value", "theta", "eta"):
        found, expected = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree._asdict()[name])])
            for tree in (spread, alone)
        )
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)

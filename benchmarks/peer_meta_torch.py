"""A meta-gradient through LoRA training in PyTorch: the other side of `meta_vs_torch.py`.

Runs in an interpreter with torch and transformers; imports nothing of hen_jax.
"""

import os
from collections.abc import Callable
from typing import Any

import duel
import numpy as np
import torch
import transformers
from meta_start import TARGETS, start
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

MODULES = {"attn": "self_attn", "mlp": "mlp"}


class Adapted(torch.nn.Module):
    """A frozen linear layer with a low-rank adapter, whose leaves `functional_call` replaces."""

    def __init__(self, linear: torch.nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float):
        super().__init__()
        self.linear, self.scale = linear, scale
        self.a, self.b = torch.nn.Parameter(a), torch.nn.Parameter(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x W + scale (x A) B`."""
        return self.linear(x) + (self.scale * (x @ self.a)) @ self.b


def adapted(task: dict) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The frozen model with adapters in place, and the shared start by our names, `[L, ...]`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task["model"],
        dtype=torch.float32,
        attn_implementation=task["attention"],
        trust_remote_code=False,
    ).requires_grad_(False)
    layers = model.model.layers
    linears = {
        name: [getattr(getattr(one, MODULES[part]), f"{name}_proj") for one in layers]
        for name, part in TARGETS.items()
    }
    shapes = {name: (some[0].in_features, some[0].out_features) for name, some in linears.items()}
    leaves = {
        name: torch.from_numpy(leaf)
        for name, leaf in start(shapes, len(layers), task["rank"], task["seed"]).items()
    }
    for name, part in TARGETS.items():
        for index, one in enumerate(layers):
            pair = (leaves[f"{name}/{side}"][index].clone() for side in ("a", "b"))
            module = Adapted(linears[name][index], *pair, task["alpha"] / task["rank"])
            setattr(getattr(one, MODULES[part]), f"{name}_proj", module)
    return model, leaves


class Checkpointed(torch.nn.Module):
    """A decoder layer whose activations are computed again in the backward pass.

    transformers' own checkpointing would run the layer again with the parameters that the module
    holds, not with those that `functional_call` had put in their place.
    """

    def __init__(self, layer: torch.nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, **given: Any) -> torch.Tensor:
        """The layer's output; `given` is constant."""
        adapter = {k: v for k, v in self.layer.named_parameters() if k.endswith((".a", ".b"))}

        def run(x: torch.Tensor, adapter: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.func.functional_call(self.layer, adapter, (x,), given)

        return checkpoint(run, x, adapter, use_reentrant=False)


def paths(leaves: dict[str, torch.Tensor], layer: str) -> dict[str, torch.Tensor]:
    """Stacked leaves as the parameters of the model's modules; `layer` is a layer's prefix."""
    return {
        f"model.layers.{index}.{layer}{MODULES[TARGETS[name]]}.{name}_proj.{side}": row
        for (name, side), leaf in ((key.split("/"), leaf) for key, leaf in leaves.items())
        for index, row in enumerate(leaf.unbind())
    }


class TrainedPositions(torch.nn.Module):
    """Loss of one packed batch: only trained positions go through the vocabulary product."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.lm_head = model.model, model.lm_head

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of the trained positions, in nats."""
        hidden = self.model(**inputs(batch)).last_hidden_state
        logits = self.lm_head(hidden.flatten(0, 1)[batch["trained"]])
        return torch.nn.functional.cross_entropy(logits, batch["labels"])


class WholeModel(torch.nn.Module):
    """The same loss as transformers computes it: every position has logits."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.whole = model.model, [model]  # in a list: its parameters are named once

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of the trained positions, in nats."""
        labels = batch["shifted"]
        return self.whole[0](**inputs(batch), labels=labels, shift_labels=labels).loss


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The arguments of transformers' models."""
    return {
        "input_ids": batch["tokens"],
        "position_ids": batch["positions"],
        "attention_mask": batch["visible"],
        "use_cache": False,
    }


def prepared(batch: dict) -> dict[str, torch.Tensor]:
    """Tensors of a batch; `visible` is the block-diagonal causal mask, added to the scores."""
    found = {name: torch.tensor(x) for name, x in batch.items()}
    segments = found["segments"]
    length = segments.shape[1]
    mine, theirs = segments[:, None, :, None], segments[:, None, None, :]
    # Segment -1 is the prefix that all documents of a row share.
    together = (mine == theirs) | ((mine > 0) & (theirs == -1))
    seen = together & torch.ones(length, length).tril().bool()
    found["visible"] = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    found["trained"] = found["mask"].flatten().nonzero().flatten()
    found["labels"] = found["targets"].flatten()[found["trained"]]
    found["shifted"] = found["targets"].masked_fill(found["mask"] == 0, duel.IGNORED)
    return found


def meta_step(model: torch.nn.Module, task: dict) -> Callable:
    """`(start, rates) -> query loss, gradients of the start, gradients of the rates`."""
    body = WholeModel(model) if task["every_logit"] else TrainedPositions(model)
    layer = "layer." if isinstance(model.model.layers[0], Checkpointed) else ""
    *support, query = [prepared(batch) for batch in task["batches"]]

    def loss(leaves: dict[str, torch.Tensor], batch: dict) -> torch.Tensor:
        return torch.func.functional_call(body, paths(leaves, layer), (batch,))

    def trained(leaves: dict, rates: dict, gradient: Callable) -> torch.Tensor:
        for batch in support:
            slope = gradient(leaves, batch)
            leaves = {name: leaf - rates[name] * slope[name] for name, leaf in leaves.items()}
        return loss(leaves, query)

    def by_autograd(leaves: dict, rates: dict) -> tuple:
        leaves, rates = (
            {name: leaf.detach().requires_grad_() for name, leaf in tree.items()}
            for tree in (leaves, rates)
        )

        def gradient(leaves: dict, batch: dict) -> dict:
            wanted = list(leaves.values())
            found = torch.autograd.grad(loss(leaves, batch), wanted, create_graph=True)
            return dict(zip(leaves, found, strict=True))

        value = trained(leaves, rates, gradient)
        found = iter(torch.autograd.grad(value, [*leaves.values(), *rates.values()]))
        of_leaves = {name: next(found) for name in leaves}
        return value, of_leaves, {name: next(found) for name in rates}

    def by_func(leaves: dict, rates: dict) -> tuple:
        def outer(leaves: dict, rates: dict) -> torch.Tensor:
            return trained(leaves, rates, torch.func.grad(loss))

        (of_leaves, of_rates), value = torch.func.grad_and_value(outer, (0, 1))(leaves, rates)
        return value, of_leaves, of_rates

    return {"autograd": by_autograd, "func": by_func}[task["how"]]


def theirs(task: dict) -> dict:
    """The meta-gradient, timed; the gradients are written to `task["gradients"]`."""
    torch.set_num_threads(os.cpu_count() or 1)
    model, leaves = adapted(task)
    if task["checkpointing"]:
        model.model.layers = torch.nn.ModuleList(map(Checkpointed, model.model.layers))
    step = meta_step(model, task)
    rates = {name: torch.tensor(task["rate"]) for name in leaves}

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        value, of_leaves, of_rates = step(leaves, rates)  # as numpy, so that no graph is kept
        named = of_leaves | {f"rate/{name}": leaf for name, leaf in of_rates.items()}
        return float(value), {name: leaf.detach().numpy() for name, leaf in named.items()}

    with sdpa_kernel(SDPBackend.MATH):
        value, found = gradients()
        measured = duel.timed(gradients, task["repeats"])
    measured |= {"peak_bytes": duel.peak_bytes(), "value": value}
    np.savez(task["gradients"], **found)
    return measured


if __name__ == "__main__":
    duel.main(lambda: "run meta_vs_torch.py", theirs)

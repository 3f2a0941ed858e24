"""Every preference loss against TRL's own functions, on recorded log-probabilities per token."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from hen_jax.objectives.direct import OBJECTIVES, Side, kto_baseline, kto_losses
from hen_jax.steps.preference_config import PreferenceConfig

B, T = 6, 14
RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(3, T - 1, 2 * B)  # of the chosen, then of the rejected replies
MASK = np.arange(T) < 1 + LENGTHS[:, None]
MASK[:, 0] = False  # the prompt, of one token
POLICY = -RANDOM.uniform(0.05, 4, (2 * B, T - 1)) * MASK[:, 1:]
REFERENCE = (POLICY - RANDOM.normal(0, 0.6, POLICY.shape)) * MASK[:, 1:]


class Recorded(torch.nn.Module):
    """A model that says what was recorded, in the fields that TRL reads off its fused head."""

    is_gradient_checkpointing = False

    def __init__(self, log_probs: np.ndarray):
        super().__init__()
        self.log_probs = torch.tensor(log_probs, dtype=torch.float32)

    def forward(self, **_: Any) -> SimpleNamespace:
        blank = torch.zeros_like(self.log_probs)
        return SimpleNamespace(
            log_probs=self.log_probs, entropy=blank, mean_logits=blank, is_top1=blank.bool()
        )


def trainer(**fields: Any) -> Any:
    """What the loss functions of TRL's trainers read of themselves."""
    metrics = {"train": SimpleNamespace(), "eval": SimpleNamespace()}
    known: dict[str, Any] = {
        "model": Recorded(POLICY),
        "ref_model": Recorded(REFERENCE),
        "accelerator": Accelerator(cpu=True),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None),
        "aux_loss_enabled": False,
        "_metrics": {mode: _Lists() for mode in metrics},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**known | fields)


class _Lists(dict):
    def __missing__(self, key: str) -> list:
        self[key] = []
        return self[key]


def dpo_of_theirs(loss_type: str, beta: float, smoothing: float, ld_alpha: float | None) -> float:
    self = trainer(
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        ld_alpha=ld_alpha,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    ids = torch.ones((2 * B, T), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": torch.tensor(MASK).long()}
    return float(DPOTrainer._compute_loss(self, self.model, inputs, False))


def sides(tail: float = 1.0) -> list[Side]:
    """Ours, of sums; tokens past the shorter reply's end count `tail`."""
    shorter = np.tile(LENGTHS.reshape(2, B).min(axis=0), 2)
    counts = np.where(np.arange(T - 1) < shorter[:, None], 1.0, tail)
    both = [(x * counts).sum(axis=1).reshape(2, B) for x in (POLICY, REFERENCE)]
    parts = zip(*both, LENGTHS.reshape(2, B), strict=True)
    return [Side(*(jnp.asarray(x, jnp.float32) for x in side)) for side in parts]


def ours(name: str) -> float:
    config = PreferenceConfig(loss=name)  # pyright: ignore[reportArgumentType]
    loss = OBJECTIVES[name].loss
    assert loss is not None
    return float(loss(*sides(config.values.tail), config.values).mean())


@pytest.mark.parametrize(
    ("name", "theirs", "ld_alpha"),
    [
        ("dpo", "sigmoid", None),
        ("robust", "robust", None),
        ("hinge", "hinge", None),
        ("ipo", "ipo", None),
        ("exo", "exo_pair", None),
        ("dpo_norm", "sigmoid_norm", None),
        ("ld_dpo", "sigmoid", 0.5),
    ],
)
def test_the_dpo_family(name, theirs, ld_alpha):
    values = PreferenceConfig(loss=name).values
    expected = dpo_of_theirs(theirs, values.beta, values.smoothing, ld_alpha)
    assert ours(name) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "theirs", "means"),
    [("cdpo", "sigmoid", False), ("cpo", "sigmoid", False), ("simpo", "simpo", True)],
)
def test_cpo_simpo_and_cdpo(name, theirs, means):
    """TRL has cDPO only as CPO with smoothed labels, which is cDPO of a flat reference."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer  # warns at import, as an error outside

    values = PreferenceConfig(loss=name).values
    self = trainer(
        loss_type=theirs,
        beta=values.beta,
        label_smoothing=values.smoothing,
        simpo_gamma=values.margin,
        alpha=0.0,
    )
    chosen, rejected = sides()
    if name == "cdpo":
        chosen, rejected = (side._replace(reference=0 * side.policy) for side in (chosen, rejected))
    logps = [
        torch.tensor(np.asarray(side.per_token(side.policy) if means else side.policy))
        for side in (chosen, rejected)
    ]
    expected, *_ = CPOTrainer.cpo_loss(self, *logps)
    loss = OBJECTIVES[name].loss
    assert loss is not None
    np.testing.assert_allclose(loss(chosen, rejected, values), expected, rtol=1e-5, atol=1e-5)


def test_orpo():
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer  # likewise

    values = PreferenceConfig(loss="orpo").values
    logps = [torch.tensor(np.asarray(side.per_token(side.policy))) for side in sides()]
    theirs, *_ = ORPOTrainer.odds_ratio_loss(trainer(beta=values.beta), *logps)
    loss = OBJECTIVES["orpo"].loss
    assert loss is not None
    np.testing.assert_allclose(loss(*sides(), values), -theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_kto(sign):
    """With a z0 above 0, and with one that is cut off there."""
    shift = sign * np.abs(RANDOM.normal(0, 0.3, POLICY.shape)) * MASK[:, 1:]
    labels = np.arange(2 * B) % 3 == 0
    ids = torch.ones((2 * B, T), dtype=torch.long)
    mask = torch.tensor(MASK).long()
    policy, reference = POLICY.sum(axis=1), REFERENCE.sum(axis=1)
    self = trainer(
        beta=0.3,
        desirable_weight=1.2,
        undesirable_weight=0.8,
        loss_type="kto",
        calculate_KL=True,
        precompute_ref_logps=True,
        _compute_kl_logps=lambda model, batch: torch.tensor(policy + shift.sum(axis=1)).float(),
    )
    batch = {
        "input_ids": ids,
        "attention_mask": ids,
        "completion_mask": mask,
        "label": torch.tensor(labels),
        "ref_logps": torch.tensor(reference).float(),
        "ref_KL_logps": torch.tensor(policy).float(),
    }
    expected = float(KTOTrainer._compute_loss(self, self.model, batch, False))
    config = PreferenceConfig(loss="kto", beta=0.3, desirable=1.2, undesirable=0.8)
    z0 = kto_baseline(jnp.float32(shift.sum()), jnp.float32(2 * B))
    wanted, unwanted = kto_losses(jnp.asarray(policy - reference), z0, config.values)
    found = np.where(labels, wanted, unwanted).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert (float(z0) > 0) is (sign > 0)

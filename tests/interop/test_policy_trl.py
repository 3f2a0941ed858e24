"""The policy objective is TRL's on the same tensors: loss and gradient to 1e-5."""

import collections
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from hen_jax.objectives.advantages import AdvantageConfig, group_advantages
from hen_jax.objectives.policy import (
    KlConfig,
    ObjectiveConfig,
    Tokens,
    at_positions,
    policy_objective,
)

B, G, M = 4, 3, 7  # prompts, replies to each, tokens of a reply
LONGEST = 9
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, M + 1, B * G)
MASK = (np.arange(M) < LENGTHS[:, None]).astype(np.float32)
OLD = RNG.normal(-2, 0.7, (B * G, M)).astype(np.float32)
NOW, REFERENCE = (OLD + RNG.normal(0, 0.4, OLD.shape).astype(np.float32) for _ in range(2))
ADVANTAGES = RNG.normal(size=B * G).astype(np.float32)


def theirs(loss_type, level, low, high, beta, corrected, delta=None):
    """TRL's own loss and its gradient with respect to the log-probabilities."""
    trainer = object.__new__(GRPOTrainer)
    now = torch.tensor(NOW, requires_grad=True)
    same = types.SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    attributes = {
        "model": types.SimpleNamespace(training=True),
        "args": types.SimpleNamespace(
            use_bias_correction_kl=corrected, delta=delta, steps_per_generation=1
        ),
        "accelerator": same,
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": level,
        "beta": beta,
        "loss_type": loss_type,
        "epsilon_low": low,
        "epsilon_high": high,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "max_completion_length": LONGEST,
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "_metrics": collections.defaultdict(lambda: collections.defaultdict(list)),
        "_get_per_token_logps_and_entropies": lambda *a, **k: (now, torch.zeros(OLD.shape), None),
    }
    for name, value in attributes.items():
        object.__setattr__(trainer, name, value)
    ids, mask = torch.zeros(B * G, M, dtype=torch.long), torch.tensor(MASK)
    loss = trainer._compute_loss(
        None,
        {
            "prompt_ids": ids,
            "prompt_mask": ids,
            "completion_ids": ids,
            "completion_mask": mask,
            "advantages": torch.tensor(ADVANTAGES),
            "old_per_token_logps": torch.tensor(OLD),
            "ref_per_token_logps": torch.tensor(REFERENCE),
            "num_items_in_batch": mask.sum(),
        },
    )
    loss.backward()
    return float(loss.detach()), now.grad.numpy()


def ours(objective, kl):
    """Our loss, the same replies in rows of G behind a shared prompt of two positions."""
    T = 2 + G * M
    segments = np.zeros((B, T), np.int32)
    segments[:, :2] = -1

    def laid(x):
        rows = np.zeros((B, T), np.float32)
        for reply in range(B * G):
            row, k, n = reply // G, reply % G, LENGTHS[reply]
            start = 2 + sum(LENGTHS[row * G : row * G + k])
            rows[row, start : start + n] = x[reply, :n]
            segments[row, start : start + n] = k + 1
        return rows

    mask, old, now, reference = (laid(x) for x in (MASK, OLD, NOW, REFERENCE))
    advantages = at_positions(jnp.asarray(ADVANTAGES.reshape(B, G)), jnp.asarray(segments))

    def loss(now):
        tokens = Tokens(now, old, reference, old, mask * 0, advantages, mask, segments)
        return policy_objective(tokens, objective, kl, kl.coefficient, G, LONGEST)[0].value

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(now))
    back = np.zeros(OLD.shape, np.float32)
    for reply in range(B * G):
        row, k = reply // G, reply % G
        back[reply, : LENGTHS[reply]] = np.asarray(gradient)[row][segments[row] == k + 1]
    return float(value), back


CASES = {
    "grpo": (("grpo", "token", 0.2, 0.2), ObjectiveConfig(aggregate="sequence")),
    "bnpo": (("bnpo", "token", 0.2, 0.2), ObjectiveConfig()),
    "dr_grpo": (("dr_grpo", "token", 0.2, 0.2), ObjectiveConfig(aggregate="constant")),
    "dapo": (("dapo", "token", 0.2, 0.28), ObjectiveConfig(clip_high=0.28)),
    "gspo": (
        ("grpo", "sequence", 3e-4, 4e-4),
        ObjectiveConfig(ratio="sequence", clip_low=3e-4, clip_high=4e-4, aggregate="sequence"),
    ),
    "cispo": (("cispo", "token", 0.2, 1.3), ObjectiveConfig(surrogate="cispo", cap=1.3)),
}


# Under "gspo" TRL multiplies the KL by the reply's ratio, we by the token's.
KINDS = [
    (name, beta, on) for name in CASES for beta, on in ((0.0, False), (0.3, False), (0.3, True))
]
KINDS.remove(("gspo", 0.3, True))


@pytest.mark.parametrize(("name", "beta", "corrected"), KINDS)
def test_loss_and_gradient_are_trls(name, beta, corrected):
    arguments, objective = CASES[name]
    expected, gradient = theirs(*arguments, beta, corrected)
    kl = KlConfig(beta, estimator="k3", times_ratio=corrected)
    found, back = ours(objective, kl)
    assert found == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(back, gradient * MASK, atol=1e-6)


def test_the_dual_clip_is_trls_delta():
    expected, gradient = theirs("grpo", "token", 0.2, 0.2, 0.0, False, delta=1.4)
    found, back = ours(ObjectiveConfig(aggregate="sequence", dual_clip=1.4), KlConfig(0.0))
    assert found == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(back, gradient * MASK, atol=1e-6)


def test_group_advantages_are_trls():
    rewards = RNG.normal(size=(B, G)).astype(np.float32)
    valid = np.ones(rewards.shape, bool)
    found = group_advantages(jnp.asarray(rewards), jnp.asarray(valid), AdvantageConfig())
    own = torch.tensor(rewards)
    expected = (own - own.mean(1, keepdim=True)) / (own.std(1, keepdim=True) + 1e-4)
    np.testing.assert_allclose(found.advantages, expected.numpy(), atol=1e-5)

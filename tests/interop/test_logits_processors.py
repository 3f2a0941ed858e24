"""Every penalty and filter of a draw against transformers' own logits processors."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.generation import logits_process as theirs

from hen_jax.sampling.logits import PROMPT, REPLY, Sampling, row_sampling, shape_logits

B, V, ASKED, SAID = 4, 500, 12, 9
RANDOM = np.random.default_rng(0)
LOGITS = (3 * RANDOM.standard_normal((B, V))).astype(np.float32)
IDS = RANDOM.integers(0, 60, (B, ASKED + SAID))  # many stand there twice
BIASED, BIAS = 7, 1.5


def marks() -> np.ndarray:
    found = np.zeros((B, V), np.uint8)
    for row, ids in zip(found, IDS, strict=True):
        row[ids[:ASKED]] |= PROMPT
        row[ids[ASKED:]] |= REPLY
    return found


def processed(*processors: theirs.LogitsProcessor) -> np.ndarray:
    scores, ids = torch.tensor(LOGITS), torch.tensor(IDS)
    return theirs.LogitsProcessorList(processors)(ids, scores).numpy()


@pytest.mark.parametrize(
    ("sampling", "processors"),
    [
        (
            Sampling(repetition_penalty=1.3),
            [theirs.RepetitionPenaltyLogitsProcessor(1.3)],
        ),
        (
            Sampling(repetition_penalty=0.7),  # below 1 it rewards
            [theirs.RepetitionPenaltyLogitsProcessor(0.7)],
        ),
        (
            Sampling(logit_bias=((BIASED, BIAS),)),
            [theirs.SequenceBiasLogitsProcessor({(BIASED,): BIAS})],
        ),
        (Sampling(top_k=20), [theirs.TopKLogitsWarper(20)]),
        (Sampling(top_p=0.8), [theirs.TopPLogitsWarper(0.8)]),
        (Sampling(min_p=0.05), [theirs.MinPLogitsWarper(0.05)]),
        (
            Sampling(0.7, 30, 0.9, 0.02, 1.2, 0.0, ((BIASED, BIAS),)),
            [
                theirs.SequenceBiasLogitsProcessor({(BIASED,): BIAS}),
                theirs.RepetitionPenaltyLogitsProcessor(1.2),
                theirs.TemperatureLogitsWarper(0.7),
                theirs.TopKLogitsWarper(30),
                theirs.TopPLogitsWarper(0.9),
                theirs.MinPLogitsWarper(0.02),
            ],
        ),
    ],
    ids=["repetition", "reward", "bias", "top-k", "top-p", "min-p", "all, in their order"],
)
def test_logits_are_shaped_as_transformers_does(sampling, processors):
    found = shape_logits(jnp.asarray(LOGITS), row_sampling([sampling] * B, 1), marks())
    np.testing.assert_allclose(found, processed(*processors), rtol=1e-5, atol=1e-5)


class Presence(theirs.LogitsProcessor):
    """transformers has none: what OpenAI documents, `mu[j] - (c[j] > 0) * alpha`, where `c` counts
    what was said in the reply so far."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros_like(scores).scatter_add_(
            1, input_ids[:, ASKED:], torch.ones_like(scores)
        )
        return scores - (counts > 0).float() * 0.6


def test_presence_is_subtracted_once_after_the_repetition_penalty():
    sampling = Sampling(repetition_penalty=1.3, presence_penalty=0.6)
    found = shape_logits(jnp.asarray(LOGITS), row_sampling([sampling] * B, 0), marks())
    wanted = processed(theirs.RepetitionPenaltyLogitsProcessor(1.3), Presence())
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)

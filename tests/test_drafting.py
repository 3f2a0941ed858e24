"""Guesses change how soon a reply is written, and nothing else."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats
from test_engine import GREEDY, PROMPTS, SAMPLINGS, SLOTS, logits_behind, model, weights

from hen_jax.sampling import drafting
from hen_jax.sampling import engine as e
from hen_jax.sampling.drafting import BETWEEN, DraftPace, guess, history_of, noted, pays
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.requests import Request

__all__ = ["model", "weights"]
GUESSING = dataclasses.replace(SLOTS, draft=3, history=96)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every chunk guesses; how many steps each took."""
    made: list[int] = []

    def kept(worth: drafting.Worth, guessed: bool, pace: DraftPace) -> drafting.Worth:
        made.append(guessed)
        return worth

    monkeypatch.setattr(drafting, "pays", lambda worth: True)
    monkeypatch.setattr(drafting, "noted", kept)
    return made


def test_what_followed_the_last_words_is_guessed():
    texts = [
        [[1, 2, 9, 9], [5, 6, 7, 8, 5, 6]],  # the reply's own, and only as far as is known
        [[4, 7, 8, 1, 2], [3, 7, 8]],  # a hint's; nothing of the next text
        [[6, 2, 3], [5, 2, 3, 4, 2, 3]],  # the latest place, not the first
        [[1, 2, 3, 4], [9, 2, 3, 5, 1, 2, 3]],  # three words in common before two
        [[1, 2], [3, 4]],
        [],
    ]
    found = guess(jax.tree.map(jax.numpy.asarray, history_of(texts, 16)), 3).tolist()
    none = BETWEEN
    assert found == [[7, 8, 5], [1, 2, none], [4, 2, 3], [4, none, 9], [none] * 3, [none] * 3]


@pytest.mark.slow  # compiles for long
def test_replies_are_the_same_with_guesses(model, weights, steps):
    asked = [Request(p, 17, seed=7, sampling=s) for p, s in zip(PROMPTS, SAMPLINGS, strict=True)]
    asked += [Request(PROMPTS[3], 12, stop=(11,), sampling=GREEDY)]
    alone = e.Engine(weights, SLOTS).run(asked)
    assert not any(steps)
    hinted = [
        dataclasses.replace(request, hints=(tuple(found.tokens.tolist()),))
        for request, found in zip(asked, alone, strict=True)
    ]
    for requests in (asked, hinted):
        for found, wanted in zip(e.Engine(weights, GUESSING).run(requests), alone, strict=True):
            assert found.tokens.tolist() == wanted.tokens.tolist()
            assert found.finish == wanted.finish
            np.testing.assert_allclose(found.log_probs, wanted.log_probs, atol=1e-5)
            np.testing.assert_array_equal(found.top.tokens, wanted.top.tokens)
            if wanted.support is not None:
                np.testing.assert_array_equal(found.support, wanted.support)
    assert any(steps)


def test_a_reply_known_before_takes_half_of_the_steps(weights, steps):
    engine = e.Engine(weights, GUESSING)
    first = engine.run([Request(PROMPTS[0], 33, sampling=GREEDY)])[0].tokens.tolist()
    before = len(steps)
    again = Request(PROMPTS[0], 33, sampling=GREEDY, hints=((*PROMPTS[0], *first),))
    assert engine.run([again])[0].tokens.tolist() == first
    assert len(steps) - before <= 4  # chunks of 4 steps of up to 4 tokens; without guesses 9


def test_sampled_replies_are_distributed_as_without_guesses(model, weights, steps):
    """Chi-square of the second token of 800 replies that all draw the first one alike."""
    sampling = Sampling(temperature=1.0, top_k=6)
    first = int(uncached_best(model, PROMPTS[0]))
    likely = Request((*PROMPTS[0], first), 1, sampling=sampling)
    exact = logits_behind(model, likely, e.Engine(weights, SLOTS).run([likely])[0])[0]
    best = np.argsort(-exact)[:6]
    wanted = np.exp(exact[best]) / np.exp(exact[best]).sum()
    hint = (*PROMPTS[0], first, int(best[1]), int(best[0]))
    certain = dataclasses.replace(likely, prompt=PROMPTS[0], max_new_tokens=2, hints=(hint,))
    engine, seen = e.Engine(weights, GUESSING), []
    requests = [dataclasses.replace(certain, seed=seed) for seed in range(800)]
    for found in engine.run(requests):
        if found.tokens[0] == first:
            seen.append(int(found.tokens[1]))
    counts = np.asarray([seen.count(token) for token in best])
    assert counts.sum() == len(seen) > 100
    expected = np.asarray(wanted, float) / np.sum(wanted, dtype=float) * len(seen)
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def uncached_best(model, prompt: tuple[int, ...]) -> int:
    from test_engine import uncached

    return uncached(model, list(prompt))[-1].argmax()


def test_guesses_are_made_where_they_pay():
    worth = drafting.UNKNOWN
    assert not pays(worth)
    worth = noted(worth, False, DraftPace(9.0, 1.0))  # compiling: not counted
    worth = noted(worth, False, DraftPace(0.02, 1.0))
    assert pays(worth)  # not known yet
    worth = noted(worth, True, DraftPace(9.0, 1.0))
    assert pays(worth)
    for gained, better in ((1.8, True), (1.2, False)):
        assert pays(noted(worth, True, DraftPace(0.03, gained))) is better
    worth = noted(worth, True, DraftPace(0.03, 1.2))
    for _ in range(drafting.RETRY):
        assert not pays(worth)
        worth = noted(worth, False, DraftPace(0.02, 1.0))
    assert pays(worth)

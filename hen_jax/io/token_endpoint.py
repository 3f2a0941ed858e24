"""Tokens drawn or scored by an OpenAI-compatible completions endpoint, from token ids.

The server must take a prompt of token ids, list log-probabilities, and name tokens as
`token_id:123` (vLLM's `return_tokens_as_token_ids`); its stop token must be among them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hen_jax.core.errors import InputError
from hen_jax.io.endpoint import Endpoint
from hen_jax.io.endpoint_trouble import api_key

if TYPE_CHECKING:
    import openai

_T = TypeVar("_T")
R = TypeVar("R")

NAMED = "token_id:"
"""Before the id of a token in the answer."""


class DrawnTokens(NamedTuple):
    """One continuation, its stop token included."""

    tokens: list[int]
    log_probs: list[float]  # of the server's model at temperature 1, natural
    stopped: bool


def draw_tokens(
    endpoint: Endpoint, prompts: Sequence[Sequence[int]], seeds: Sequence[int], stop: Sequence[int]
) -> list[DrawnTokens]:
    """Continues each prompt at temperature 1 until one of the `stop` ids, in order.

    Raises:
      InputError: the server does not answer after `endpoint.tries`, or not in this form; names it.
    """
    asked = list(zip(prompts, seeds, strict=True))

    def drawn(client: "openai.OpenAI", one: tuple[Sequence[int], int]) -> DrawnTokens:
        prompt, seed = one
        return _drawn(client, endpoint, prompt, seed, stop)

    return _each(endpoint, "drawn", asked, drawn)


def endpoint_log_probs(endpoint: Endpoint, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """The log-probability of each token of each text but its first, in nats, in order.

    The server must echo a prompt with its log-probabilities; it draws one token behind it, which
    is left out.

    Raises:
      InputError: the server does not answer after `endpoint.tries`, or not in this form; names it.
    """
    return _each(endpoint, "scored", texts, lambda client, ids: _echoed(client, endpoint, ids))


def _each(
    endpoint: Endpoint,
    done: str,
    asked: Sequence[_T],
    answer: "Callable[[openai.OpenAI, _T], R]",
) -> list[R]:
    """The answer to each request, several at a time, in order."""
    import openai  # takes most of a second

    client = openai.OpenAI(
        base_url=endpoint.url,
        api_key=api_key() or "none",
        timeout=endpoint.timeout,
        max_retries=endpoint.tries - 1,
    )

    def one(given: _T) -> R:
        try:
            return answer(client, given)
        except (openai.APIError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"endpoint {endpoint.url}, model {endpoint.model}: no tokens {done} "
                f"({' '.join(f'{type(error).__name__}: {error}'.split())[:200]})"
            ) from None

    with client, ThreadPoolExecutor(endpoint.at_once) as pool:
        return list(pool.map(one, asked))


def _echoed(client: "openai.OpenAI", endpoint: Endpoint, ids: Sequence[int]) -> list[float]:
    answer = client.completions.create(
        model=endpoint.model, prompt=list(ids), max_tokens=1, echo=True, logprobs=1, temperature=0
    )
    found = answer.choices[0].logprobs
    log_probs = (found.token_logprobs or [])[1 : len(ids)] if found is not None else []
    if len(log_probs) != len(ids) - 1 or any(one is None for one in log_probs):
        raise ValueError("the answer does not list the log-probabilities of its prompt (echo)")
    return [float(one) for one in log_probs]


def _drawn(
    client: "openai.OpenAI",
    endpoint: Endpoint,
    prompt: Sequence[int],
    seed: int,
    stop: Sequence[int],
) -> DrawnTokens:
    answer = client.completions.create(
        model=endpoint.model,
        prompt=list(prompt),
        max_tokens=endpoint.max_new_tokens,
        temperature=1.0,
        seed=seed % 2**31,
        logprobs=1,
        extra_body={"return_tokens_as_token_ids": True, "stop_token_ids": list(stop)},
    )
    choice = answer.choices[0]
    if choice.logprobs is None:
        raise ValueError("the answer has no logprobs")
    names, log_probs = choice.logprobs.tokens or [], choice.logprobs.token_logprobs or []
    if not names or any(not name.startswith(NAMED) for name in names):
        raise ValueError(f"the answer does not name its tokens as {NAMED}ID")
    tokens = [int(name.removeprefix(NAMED)) for name in names]
    stopped = choice.finish_reason == "stop"
    if stopped and tokens[-1] not in stop:
        raise ValueError("the answer ended without its stop token")
    return DrawnTokens(tokens, [float(x) for x in log_probs], stopped)

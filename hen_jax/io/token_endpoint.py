"""Tokens drawn by an OpenAI-compatible completions endpoint, from token ids to token ids.

The server must take a prompt of token ids, list log-probabilities, and name tokens as
`token_id:123` (vLLM's `return_tokens_as_token_ids`); its stop token must be among them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.io.endpoint import Endpoint
from hen_jax.io.endpoint_trouble import api_key

if TYPE_CHECKING:
    import openai

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
    import openai  # takes most of a second

    client = openai.OpenAI(
        base_url=endpoint.url,
        api_key=api_key() or "none",
        timeout=endpoint.timeout,
        max_retries=endpoint.tries - 1,
    )

    def one(prompt: Sequence[int], seed: int) -> DrawnTokens:
        try:
            return _drawn(client, endpoint, prompt, seed, stop)
        except (openai.APIError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"endpoint {endpoint.url}, model {endpoint.model}: no tokens drawn "
                f"({' '.join(f'{type(error).__name__}: {error}'.split())[:200]})"
            ) from None

    with client, ThreadPoolExecutor(endpoint.at_once) as pool:
        return list(pool.map(one, prompts, seeds))


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

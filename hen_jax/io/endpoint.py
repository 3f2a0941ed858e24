"""An OpenAI-compatible endpoint as a `Chat`: several requests at once, tried again where it helps.

The key is taken from the environment (`HEN_API_KEY`, else `OPENAI_API_KEY`) and from nowhere else;
no message shows it. A server that asks for none may go without.
"""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, NotNegative, Positive, check_ranges
from hen_jax.core.shapes import shown
from hen_jax.io.endpoint_trouble import KEY_NAMES, api_key, short, trouble_of
from hen_jax.text.conversation import Chat, Message, Reply, UnansweredError, asked_before
from hen_jax.text.replay import whole_characters

if TYPE_CHECKING:
    import openai

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model behind a server, and how it is asked.

    Raises:
      InputError: an address that is none or holds a password, no model, or a number out of range.
    """

    url: str  # up to and including /v1
    model: str
    max_new_tokens: Count = 512
    temperature: NotNegative | None = (
        0.0  # None: the server's default, as some models allow no other
    )
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    at_once: Count = 8  # requests under way at a time
    per_minute: NotNegative = 0.0  # requests begun in a minute at most; 0: any number
    timeout: Positive = 120.0  # seconds for one request as a whole
    tries: Count = 5  # of each conversation
    backoff: NotNegative = 1.0  # seconds before the second try; doubled before each further one

    def __post_init__(self):
        _require_address(self.url)
        for said in (self.url, self.model, *self.stop):
            if any("\ud800" <= one <= "\udfff" for one in said):
                raise InputError(f"endpoint: {shown(said, 100)} is not UTF-8 text; write it so")
        if not self.model:
            raise InputError(f"endpoint {self.url}: no model is named; write URL#MODEL")
        try:
            check_ranges(self)
        except InputError as error:
            raise InputError(f"endpoint {self.url}: {error}") from None


def _require_address(url: str) -> None:
    try:
        address = urlsplit(url)
        well = address.scheme in ("http", "https") and address.hostname and not address.query
        _ = address.port  # raises where it is no number
    except ValueError:
        well, address = False, urlsplit("")
    if "@" in address.netloc:
        raise InputError(
            f"the endpoint at {address.hostname} is given with a user or a password; set "
            f"{KEY_NAMES[0]} in the environment instead"
        )
    if not well:
        raise InputError(f"endpoint {shown(url, 100)}: give an address such as http://HOST:8000/v1")


class _GivenUpError(Exception):
    """No reply to one conversation, after how many tries and why."""


class _NonsenseError(ValueError):
    """An answer with state 200 that is no chat completion."""


def endpoint_chat(endpoint: Endpoint) -> Chat:
    """The model behind the endpoint; the conversations of a call are asked `at_once` at a time.

    What may pass (no connection, a timeout, a cut answer, 429, 5xx, an answer that is no chat
    completion) is tried again, after `backoff` or as long as the server's `Retry-After` says. At
    the first conversation that is given up no further one is begun, and what is under way waited
    for. Thoughts are not sent. Equal conversations draw from the seed and the numbers after it.

    Raises:
      UnansweredError: when asked: one line with the cause; holds the replies that came.
    """
    pause = pacing(endpoint.per_minute)

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        if not asked:
            return []
        replies, failures = _run(_ask_all(asked, endpoint, pause))
        if failures:
            done = len(asked) - replies.count(None)
            raise UnansweredError(
                f"endpoint {endpoint.url}, model {endpoint.model}: {failures[0]}; {done} of "
                f"{len(asked)} conversations of this call were answered",
                replies,
            )
        return [reply for reply in replies if reply is not None]

    return chat


def pacing(per_minute: float, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """How many seconds the next request has to wait, each one booked as it is asked for.

    At 60 a minute, three requests asked for at once wait 0, 1 and 2 seconds.
    """
    gap = 60 / per_minute if per_minute else 0.0
    free = clock()

    def wait() -> float:
        nonlocal free
        now = clock()
        start = max(now, free)
        free = start + gap
        return start - now

    return wait


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs it to its end, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _ask_all(
    asked: Sequence[Sequence[Message]], endpoint: Endpoint, pause: Callable[[], float]
) -> tuple[list[Reply | None], list[_GivenUpError]]:
    """A reply or None to each, and why some have none."""
    import openai  # takes most of a second, and only who asks an endpoint needs it

    replies: list[Reply | None] = [None] * len(asked)
    again = asked_before(asked)
    failures: list[_GivenUpError] = []
    waiting = iter(enumerate(asked))

    async def work(client: "openai.AsyncOpenAI") -> None:
        for place, messages in waiting:  # all workers draw from one iterator
            try:
                replies[place] = await _ask(client, messages, endpoint, pause, again[place])
            except _GivenUpError as error:
                failures.append(error)
            if failures:
                return

    try:
        made = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=api_key() or "none",
            timeout=endpoint.timeout,
            max_retries=0,
        )
    except Exception as error:
        if type(error).__name__ != "InvalidURL":  # of whichever httpx this openai brings
            raise
        raise InputError(f"endpoint {endpoint.url}: no address ({error}); mend it") from None
    async with made as client:
        await asyncio.gather(*(work(client) for _ in range(min(endpoint.at_once, len(asked)))))
    return replies, failures


async def _ask(
    client: "openai.AsyncOpenAI",
    messages: Sequence[Message],
    endpoint: Endpoint,
    pause: Callable[[], float],
    again: int,
) -> Reply:
    """One reply, tried for again as long as that may help. Raises `_GivenUpError`."""
    import openai

    request = chat_request(messages, endpoint, again)
    for tried in range(1, endpoint.tries + 1):
        await asyncio.sleep(pause())
        try:
            async with asyncio.timeout(endpoint.timeout):
                answer = await client.chat.completions.with_raw_response.create(**request)
                return _reply(answer.text)
        except (openai.APIError, TimeoutError, _NonsenseError) as error:
            trouble = trouble_of(error, endpoint.timeout, endpoint.backoff * 2 ** (tried - 1))
        except UnicodeEncodeError as error:
            raise _GivenUpError(f"the conversation holds half a character ({error})") from None
        if trouble.pause is None or tried == endpoint.tries:
            raise _GivenUpError(f"{trouble.line} (tries: {tried})")
        await asyncio.sleep(trouble.pause)
    raise AssertionError("the last try returns or raises")


def chat_request(messages: Sequence[Message], endpoint: Endpoint, again: int = 0) -> dict[str, Any]:
    """The fields of a request; `again` is added to the seed."""
    given = {
        "temperature": endpoint.temperature,
        "top_p": endpoint.top_p,
        "seed": None if endpoint.seed is None else endpoint.seed + again,
        "stop": list(endpoint.stop) or None,
    }
    return {
        "model": endpoint.model,
        "messages": [{"role": one.role, "content": one.content} for one in messages],
        _limit_name(endpoint.url): endpoint.max_new_tokens,
        **{name: value for name, value in given.items() if value is not None},
    }


def _limit_name(url: str) -> str:
    """OpenAI's newer models refuse the field that all other servers know."""
    host = urlsplit(url).hostname or ""
    return "max_completion_tokens" if host.endswith("openai.com") else "max_tokens"


def _reply(body: str) -> Reply:
    """The first choice of a chat completion; no content (a refusal, say) is an empty reply."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, end = choice["message"].get("content"), choice.get("finish_reason")
        tokens = (answer.get("usage") or {}).get("completion_tokens")
        if not isinstance(text, str | None):
            raise TypeError("the content is no text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _NonsenseError(f"no chat completion: {short(body)!r}") from None
    cut = end in ("length", "content_filter")
    counted = isinstance(tokens, int) and tokens >= 0
    return Reply(whole_characters(text or ""), tokens if counted else None, stopped=not cut)

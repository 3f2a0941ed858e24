"""One reply of an OpenAI-compatible endpoint, piece by piece as it comes."""

from collections.abc import Generator, Sequence

from hen_jax.core.errors import InputError
from hen_jax.io.endpoint import Endpoint, chat_request, endpoint_chat
from hen_jax.io.endpoint_trouble import api_key, trouble_of
from hen_jax.text.conversation import Message, Reply


def endpoint_pieces(messages: Sequence[Message], endpoint: Endpoint) -> Generator[str, None, Reply]:
    """Pieces of the reply, and the reply. A server that sends no stream is asked for it as a whole.

    What may pass is tried again by the client, `endpoint.tries` times in all.

    Raises:
      InputError: no reply, or one that was cut off; names the endpoint and the cause.
    """
    import openai  # takes most of a second

    text, end, began = "", None, False
    try:
        with openai.OpenAI(
            base_url=endpoint.url,
            api_key=api_key() or "none",
            timeout=endpoint.timeout,
            max_retries=endpoint.tries - 1,
        ) as client:
            for chunk in client.chat.completions.create(
                **chat_request(messages, endpoint), stream=True
            ):
                began = True
                for choice in chunk.choices[:1]:
                    end = choice.finish_reason or end
                    text += choice.delta.content or ""
                    yield choice.delta.content or ""
    except openai.APIError as error:
        line = trouble_of(error, endpoint.timeout, 0.0).line
        raise InputError(f"endpoint {endpoint.url}, model {endpoint.model}: {line}") from None
    if not began:
        [reply] = endpoint_chat(endpoint)([messages])
        yield reply.text
        return reply
    if end is None:  # the client takes a stream that just ends for a whole one
        raise InputError(f"endpoint {endpoint.url}, model {endpoint.model}: the reply was cut off")
    return Reply(text, stopped=end not in ("length", "content_filter"))

"""What is told of streams that do not end in time once the server is to stop."""

import asyncio
from collections.abc import AsyncGenerator

import anyio

from hen_jax.serving.chat_answers import dumped
from hen_jax.serving.refusals import refusal_body, stopping


async def ended_in_time(
    events: AsyncGenerator[str, None], told: anyio.Event, seconds: float
) -> AsyncGenerator[str, None]:
    """The events; from `told` on for so many seconds, and then one that says what happened.

    Clients take a stream that just ends for a whole one.
    """
    late = asyncio.ensure_future(_late(told, seconds))
    coming = late
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            await asyncio.wait({coming, late}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield dumped(refusal_body(stopping(seconds)))
                return
            if (event := coming.result()) is None:
                return
            yield event
    finally:
        late.cancel()
        # The generator, if it runs, ends by it and frees its slot; nothing here may be awaited, as
        # a scope that is cancelled would end that, too.
        coming.cancel()


async def _late(told: anyio.Event, seconds: float) -> None:
    await told.wait()
    await asyncio.sleep(seconds)

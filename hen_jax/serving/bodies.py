"""Bodies of requests and answers."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hen_jax.serving.chat_answers import dumped
from hen_jax.serving.fields import read_object
from hen_jax.serving.refusals import RefusedError


async def read_body(request: Request, most: int) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
      RefusedError: it is too large, not JSON, or does not say that it is: a page of another site
        can send anything else without being asked for leave.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError("send the header content-type: application/json", 415)
    raw = bytearray()
    try:
        async for piece in request.stream():
            raw += piece
            if len(raw) > most:
                raise RefusedError(f"the body has more than {most} bytes", 413)
    except ClientDisconnect:
        raise RefusedError("the body was cut off") from None
    return read_object(bytes(raw))


def answer_json(body: dict[str, Any], headers: Mapping[str, str]) -> Response:
    """An answer as JSON."""
    return Response(dumped(body), media_type="application/json", headers=headers)

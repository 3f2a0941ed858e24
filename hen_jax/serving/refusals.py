"""What a client is told when it gets no answer, in the words and states of the OpenAI API."""

from collections.abc import Mapping
from typing import Any

from hen_jax.core.errors import InputError


class RefusedError(InputError):
    """A request that is not answered.

    The official client tries 408, 409, 429 and 5xx again, unless the header `x-should-retry` says
    not to; a bad request is therefore never one of these.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        field: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.field, self.code = status, field, code
        self.headers = dict(headers or {})


def refusal_body(error: RefusedError) -> dict[str, Any]:
    """The JSON body; also what a stream says that fails after its first line."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    server = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = kinds.get(error.status, server)
    told = {"message": str(error), "type": kind, "param": error.field, "code": error.code}
    return {"error": told}


def full(seconds: int) -> RefusedError:
    """Everybody waits already."""
    return RefusedError(
        f"all slots are taken and the queue is full; try again in {seconds} s",
        429,
        code="queue_full",
        headers={"retry-after": str(seconds)},
    )


def unknown_model(name: str, known: list[str]) -> RefusedError:
    """A name that stands for nothing here."""
    return RefusedError(
        f"there is no model {name[:100]!r}; there are {', '.join(known)}",
        404,
        "model",
        "model_not_found",
    )


def too_late(seconds: float) -> RefusedError:
    """A reply that took longer than a request may; trying again would take as long."""
    return RefusedError(
        f"the reply was not finished in {seconds:g} s; ask for fewer tokens",
        504,
        code="timeout",
        headers={"x-should-retry": "false"},
    )


def stopping(seconds: float) -> RefusedError:
    """The server was to stop, and the reply did not end in the time that was left."""
    return RefusedError(
        f"the server stops, and the reply did not end in {seconds:g} s; ask again",
        503,
        code="stopping",
    )


def broken() -> RefusedError:
    """The engine's thread ended by a defect."""
    return RefusedError(
        "the engine ended by a defect, which the server's log tells; start it again",
        500,
        code="engine_ended",
        headers={"x-should-retry": "false"},
    )

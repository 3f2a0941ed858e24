"""Loading and unloading adapters of a running server, as vLLM has it."""

import asyncio
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from hen_jax.core.errors import InputError
from hen_jax.serving import fields
from hen_jax.serving.bodies import read_body
from hen_jax.serving.refusals import RefusedError
from hen_jax.serving.served import AUTO, Served

_NAME = re.compile(r"\w[\w.:/-]{0,99}")


async def load(served: Served, request: Request) -> Response:
    """`{"lora_name": NAME, "lora_path": FOLDER}`: from now on NAME answers as that adapter."""
    _require_leave(served)
    body = await read_body(request, served.settings.body)
    fields.refuse_others(body, ("lora_name", "lora_path"), {})
    name, folder = fields.text(body, "lora_name"), fields.text(body, "lora_path")
    require_name(name, served.name)
    if "\0" in folder:
        raise fields.wrong("lora_path", folder, "the path of a folder")
    loop = asyncio.get_running_loop()
    try:
        adapter = await loop.run_in_executor(None, served.read_adapter, Path(folder))
        await asyncio.wrap_future(
            served.worker.call(lambda engine: served.experts.load(engine, name, adapter, folder))
        )
    except RefusedError:
        raise
    except (InputError, OSError) as error:  # a name that no file system takes, too
        raise RefusedError(str(error)[:300], field="lora_path") from None
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


async def unload(served: Served, request: Request) -> Response:
    """`{"lora_name": NAME}`: replies under way end as they began."""
    _require_leave(served)
    body = await read_body(request, served.settings.body)
    fields.refuse_others(body, ("lora_name", "lora_int_id"), {})
    name = fields.text(body, "lora_name")
    try:
        await asyncio.wrap_future(served.worker.call(lambda engine: served.experts.unload(name)))
    except RefusedError:
        raise
    except InputError as error:
        raise RefusedError(str(error), 404, "lora_name") from None
    return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


def require_name(name: str, base: str) -> None:
    """Refuses a name that an expert cannot have. Raises `RefusedError`."""
    if not _NAME.fullmatch(name) or name in (base, AUTO):
        raise RefusedError(
            f"an expert cannot be called {name[:100]!r}; give letters, digits and ._:/- "
            f"and neither the base's name nor {AUTO!r}",
            field="lora_name",
        )


def _require_leave(served: Served) -> None:
    if not served.settings.loading:
        raise RefusedError(
            "adapters are not loaded here: the server is open to others and has no key",
            403,
            code="loading_is_off",
        )

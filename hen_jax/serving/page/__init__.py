"""A page to talk to the server with: its own files, nothing from elsewhere."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

FOLDER = Path(__file__).parent / "files"

_ONLY_OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def index(request: Request) -> Response:
    """The page; a browser loads nothing but its two files and speaks to nobody but this server."""
    return FileResponse(FOLDER / "index.html", headers={"content-security-policy": _ONLY_OURS})

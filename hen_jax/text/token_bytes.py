"""The bytes that a single token stands for, of any fast tokenizer."""

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "▁"


def token_bytes(backend: "Tokenizer") -> Callable[[int], bytes]:
    """`bytes_of(id)` of that tokenizer: half a character is what it is, and a control token its
    name.

    Of a byte-level vocabulary `Ġdog` is `b" dog"`; of SentencePiece's `▁dog` is, and `<0xE4>` is
    `b"\\xe4"`.
    """
    added = {index: one.content for index, one in backend.get_added_tokens_decoder().items()}
    by_level = "ByteLevel" in repr(backend.decoder)

    @functools.lru_cache(maxsize=1 << 16)
    def bytes_of(index: int) -> bytes:
        if index in added:
            return added[index].encode()
        piece = backend.id_to_token(index) or ""
        if by_level:
            return b"".join(_level_bytes().get(one, one.encode()) for one in piece)
        if found := _BYTE.fullmatch(piece):
            return bytes.fromhex(found[1])
        return piece.replace(_SPACE, " ").encode()

    return bytes_of


@functools.cache
def _level_bytes() -> dict[str, bytes]:
    """The byte of each character of a byte-level vocabulary: printable ones are themselves, the
    others follow from U+0100 on (Radford et al., 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {chr(byte): bytes([byte]) for byte in printable}
    return signs | {chr(0x100 + n): bytes([byte]) for n, byte in enumerate(others)}


def token_text(raw: bytes) -> str:
    """A token's bytes as a text of its own: half a character as `bytes:\\xe4`, as OpenAI does."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

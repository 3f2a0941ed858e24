"""Whether a model has a vector for every token that its tokenizer may give."""

from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_text
from hen_jax.core.shapes import checked_shape, read_json_object, shown


def require_vectors(folder: Path, vocab_size: int) -> None:
    """Compares `tokenizer.json`, where there is one, with the rows of the embedding.

    A special token beyond the embedding that neither the chat template nor a token role names
    passes: Gemma 3 lists the images' token in its text models too.

    Raises:
      InputError: a token that may occur has no vector.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return
    tokenizer = read_tokenizer(folder)
    words = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(words, dict):
        checked_shape(words, {...: int}, path, at="model.vocab")
    ids = words.values() if isinstance(words, dict) else range(len(words))
    beyond = {token for token in ids if token >= vocab_size}
    named = named_tokens(folder)
    for token in tokenizer.get("added_tokens") or []:
        if token["id"] >= vocab_size and (not token["special"] or token["content"] in named):
            beyond.add(token["id"])
    if beyond:
        raise InputError(
            f"{path} gives token ids up to {shown(max(beyond))}, but config.json says vocab_size "
            f"{vocab_size}: the tokenizer belongs to another model, or the embedding was not "
            "resized when tokens were added"
        )


TOKENIZER = "tokenizer.json"


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The folder's `tokenizer.json`, as far as we read it of the shape that `tokenizers` writes.

    Raises:
      InputError: no such file, or another shape.
    """
    token = {"id": int, "content": str, "special": bool}
    shape = {
        "model?": (None, {"vocab?": (None, dict, list)}),
        "added_tokens?": (None, [token]),
        "padding?": (None, dict),
    }
    return read_json_object(folder / TOKENIZER, shape)


def named_tokens(folder: Path, besides: str = "") -> str:
    """Everything that names tokens: the chat template and the tokenizer's roles but for one."""
    texts: list[Any] = []
    for name in ("chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.is_file():
            # The config lists every added token once more, which is no use of it.
            of_json = path.suffix == ".json"
            texts.append(_roles(read_json_object(path), besides) if of_json else read_text(path))
    return "\n".join(texts)


def _roles(fields: dict[str, Any], besides: str) -> str:
    named = [
        value
        for key, value in fields.items()
        if key.endswith(("_token", "template")) and key != besides
    ]
    return "\n".join(str(value) for value in named)

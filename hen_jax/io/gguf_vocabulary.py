"""A model folder's tokenizer as the fields that llama.cpp reads.

What is absent in a file llama.cpp makes up: a splitting, a BOS token 11, a prefix space. So all is
written: the splitting's name, each token's kind, the ends, what is put around a text.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer, models

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.shapes import read_json_object
from hen_jax.io import companions
from hen_jax.io.gguf_keys import ENDS, ROLES
from hen_jax.io.gguf_pieces import scores_of
from hen_jax.io.gguf_splitting import splitting_of


class Vocabulary(NamedTuple):
    """The tokenizer fields of a GGUF file."""

    pre: str | None  # of byte-level BPE: how text is cut; None: SentencePiece's BPE
    tokens: list[str]
    kinds: list[TokenType]
    merges: list[str]
    scores: list[float] | None
    ids: dict[str, int]  # of bos, unk, pad, eos, eot, eom
    add_bos: bool
    add_eos: bool
    prefix_space: bool
    template: str | None

    def add_to(self, writer: GGUFWriter) -> None:
        """Adds all fields."""
        writer.add_tokenizer_model("llama" if self.pre is None else "gpt2")
        writer.add_tokenizer_pre(self.pre or "default")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        else:
            writer.add_token_merges(self.merges)
        for role, index in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{ROLES.get(role, role)}_token_id", index)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(self.prefix_space)
        if self.template is not None:
            writer.add_chat_template(self.template)


def read_vocabulary(folder: Path, rows: int, ends: Sequence[int]) -> Vocabulary:
    """The tokenizer of a folder, for a model of `rows` token vectors.

    Args:
      folder: a Hugging Face model folder.
      rows: rows without a token get a name of their own, and are never written.
      ends: ids at which a reply ends, the usual one first.

    Raises:
      InputError: no tokenizer, one that llama.cpp cannot be told, or more than three ends.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; a GGUF file holds the tokenizer")
    tokenizer, fields = Tokenizer.from_file(str(path)), read_json(path)
    if not isinstance(tokenizer.model, models.BPE):
        raise InputError(f"{path}: only BPE can be written as GGUF; use --format hf instead")
    pieces = bool(tokenizer.model.byte_fallback)
    tokens, kinds = _tokens(fields, rows)
    merges = list(map(_merge, fields["model"]["merges"]))
    ids = _ids(folder, tokenizer, ends)
    around = _around(tokenizer, ids, path)
    return Vocabulary(
        pre=None if pieces else splitting_of(tokenizer, str(path)),
        tokens=tokens,
        kinds=kinds,
        merges=[" ".join(merge) for merge in merges],
        scores=scores_of(tokens, merges) if pieces else None,
        ids=ids,
        add_bos=around[0],
        add_eos=around[1],
        prefix_space=pieces and _prefixes_space(fields, path),
        template=_template(folder),
    )


def _merge(written: str | list[str]) -> tuple[str, str]:
    """One merge in either spelling: `"a b"` of older files, or `["a", "b"]`."""
    left, right = written.split(" ", 1) if isinstance(written, str) else written
    return left, right


def _tokens(fields: dict[str, Any], rows: int) -> tuple[list[str], list[TokenType]]:
    """Each row's token and its kind. Special tokens beyond the rows are left out."""
    model = fields["model"]
    tokens = [f"[PAD{index}]" for index in range(rows)]
    kinds = [TokenType.UNUSED] * rows
    for token, index in model["vocab"].items():
        if index < rows:
            tokens[index], kinds[index] = token, _kind(token, model)
    for added in fields.get("added_tokens", []):
        if added["id"] < rows:
            tokens[added["id"]] = added["content"]
            special = added["special"]
            kinds[added["id"]] = TokenType.CONTROL if special else TokenType.USER_DEFINED
    if model.get("unk_token") in model["vocab"] and model.get("byte_fallback"):
        kinds[model["vocab"][model["unk_token"]]] = TokenType.UNKNOWN
    return tokens, kinds


def _kind(token: str, model: dict[str, Any]) -> TokenType:
    byte = model.get("byte_fallback") and len(token) == 6 and token.startswith("<0x")
    return TokenType.BYTE if byte else TokenType.NORMAL


def _ids(folder: Path, tokenizer: Tokenizer, ends: Sequence[int]) -> dict[str, int]:
    named: dict[str, int] = {}
    config = folder / "tokenizer_config.json"
    fields = read_json_object(config) if config.is_file() else {}
    known = companions.token_ids(folder)
    for role in (*ROLES, "eos"):
        said = fields.get(f"{role}_token")
        text = said.get("content") if isinstance(said, dict) else said
        index = None if text is None else tokenizer.token_to_id(text)
        index = known.get(f"{role}_token_id") if index is None else index
        if isinstance(index, int):
            named[role] = index
    ends = tuple(dict.fromkeys([*([named.pop("eos")] if "eos" in named else []), *ends]))
    if not 1 <= len(ends) <= len(ENDS):
        raise InputError(
            f"{folder}: a GGUF file names one to {len(ENDS)} ends of a reply, and this model has "
            f"{len(ends)}: {list(ends)}"
        )
    named.setdefault("bos", ends[0])  # else llama.cpp takes token 11
    return named | dict(zip(ENDS, ends, strict=False))


def _around(tokenizer: Tokenizer, ids: dict[str, int], path: Path) -> tuple[bool, bool]:
    """Whether BOS is put before a text and EOS after it."""
    plain, whole = (tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True))
    for before in ([], [ids["bos"]]):
        for after in ([], [ids["eos"]]):
            if [*before, *plain, *after] == whole:
                return bool(before), bool(after)
    raise InputError(f"{path} puts {whole} around a text, which a GGUF file cannot say")


def _prefixes_space(fields: dict[str, Any], path: Path) -> bool:
    """Of SentencePiece's BPE: whether a text begins with a space of its own.

    Raises:
      InputError: the normaliser does more than to write spaces as `gguf_pieces.SPACE`.
    """
    kinds = [one["type"] for one in _parts(fields.get("normalizer"), "normalizers")]
    metaspace = [
        one for one in _parts(fields.get("pre_tokenizer"), "pretokenizers")
        if one["type"] == "Metaspace"
    ]  # fmt: skip
    if not metaspace and kinds not in (["Prepend", "Replace"], ["Replace"]):
        raise InputError(f"{path} normalises text by {kinds}, which a GGUF file cannot say")
    prefixed = any(one.get("prepend_scheme", "always") != "never" for one in metaspace)
    return prefixed or "Prepend" in kinds


def _parts(part: dict[str, Any] | None, key: str) -> Iterable[dict[str, Any]]:
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]


def _template(folder: Path) -> str | None:
    """The chat template, wherever the folder has it."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        found = read_json_object(path).get("chat_template") if path.is_file() else None
        if isinstance(found, list):  # of several, the one without a purpose of its own
            found = {one["name"]: one["template"] for one in found}.get("default")
        if found is not None:
            return str(found)
    return None

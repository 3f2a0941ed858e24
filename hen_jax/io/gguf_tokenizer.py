"""The tokenizer inside a GGUF file, written as the files transformers reads."""

from pathlib import Path
from typing import Any

from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.io import companions
from hen_jax.io.gguf import field


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> pre_tokenizers.PreTokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, _gpt2()])


def _qwen2() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, plain])


_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRE_TOKENIZERS = {"gpt-2": _gpt2, "smollm": _smollm, "qwen2": _qwen2}
"""llama.cpp's `tokenizer.ggml.pre` -> the splitting it stands for."""

_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
"""llama.cpp's name of a token's role -> transformers'."""

_ENDS = ("eot", "eom")
"""llama.cpp's further ends of a reply: of a turn, of a message."""


def write_tokenizer(reader: GGUFReader, folder: Path) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`, generation config.

    The generation config ends a reply at each end that the file names: of text, turn and message.
    No BOS is added to a text, as the file asks; padding is the eos token where the file names no
    other, so padded rows must be masked by length, never by token id.

    Raises:
      InputError: a tokenizer that is not byte-level BPE, an unknown pre-tokenizer, or one that
        adds BOS or EOS.
    """
    build_tokenizer(reader).save(str(folder / "tokenizer.json"))
    ids = _role_ids(reader)
    tokens = field(reader, "tokenizer.ggml.tokens")
    config: dict[str, Any] = {f"{role}_token": tokens[token] for role, token in ids.items()}
    config |= {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": field(
            reader, f"{field(reader, 'general.architecture')}.context_length"
        ),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", config)
    template = field(reader, "tokenizer.chat_template")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    generation: dict[str, Any] = {
        f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad") if role in ids
    }
    ends = [ids.get("eos"), *(field(reader, f"tokenizer.ggml.{end}_token_id") for end in _ENDS)]
    ends = tuple(dict.fromkeys(end for end in ends if end is not None))
    generation = companions.with_ends(generation, ends)
    write_json(folder / "generation_config.json", generation)


def build_tokenizer(reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer of the file. Raises as `write_tokenizer`."""
    kind, pre = field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise InputError(
            f"GGUF tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported; "
            f"supported: gpt2 with {', '.join(PRE_TOKENIZERS)}"
        )
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if field(reader, f"tokenizer.ggml.{key}"):
            raise InputError(f"GGUF tokenizer field {key} is true; only false is supported")
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in field(reader, "tokenizer.ggml.merges")]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    types = field(reader, "tokenizer.ggml.token_type")
    for token, number in zip(tokens, types, strict=True):
        if number == TokenType.CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif number == TokenType.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    return tokenizer


def _role_ids(reader: GGUFReader) -> dict[str, int]:
    ids = {
        ours: field(reader, f"tokenizer.ggml.{theirs}_token_id") for theirs, ours in _ROLES.items()
    }
    if ids["pad"] is None:
        ids["pad"] = ids["eos"]
    return {role: token for role, token in ids.items() if token is not None}

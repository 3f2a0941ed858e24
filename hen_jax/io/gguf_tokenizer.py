"""The tokenizer inside a GGUF file, written as the files transformers reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.io import companions
from hen_jax.io.gguf import field
from hen_jax.io.gguf_keys import ENDS, ROLES
from hen_jax.io.gguf_pieces import SPACE, merges_of
from hen_jax.io.gguf_splitting import SPLITTINGS

_TEXTS = (
    "",
    "  leading and   inner   spaces  ",
    "\n\n\tTabs\r\n and lines \n",
    "It's I'll don't DON'T we've 's camelCase HTTPServer",
    "12 345 67890 3.14159 and 1,000,000; 2024-11-30",
    "妈妈说：“没事，我自己来。” 你吃饭了吗？",
    "🙂👨‍👩‍👧‍👦 é ﬁ Ω Привет, мир! مرحبا नमस्ते",
    "def f(x):\n    return [y**2 for y in x if y != 0]  # 100%\n",
)


def write_tokenizer(reader: GGUFReader, folder: Path) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`, generation config.

    The generation config ends a reply at each end that the file names: of text, turn and message.
    Padding is the eos token where the file names no other, so padded rows must be masked by length,
    never by token id.

    Raises:
      InputError: a tokenizer that is not BPE, or an unknown pre-tokenizer.
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
    ends = [field(reader, f"tokenizer.ggml.{end}_token_id") for end in ENDS]
    ends = tuple(dict.fromkeys(end for end in ends if end is not None))
    generation = companions.with_ends(generation, ends)
    write_json(folder / "generation_config.json", generation)


def build_tokenizer(reader: GGUFReader) -> Tokenizer:
    """The tokenizer of the file, byte-level or SentencePiece's BPE. Raises as `write_tokenizer`."""
    kind = field(reader, "tokenizer.ggml.model")
    if kind == "llama":
        tokenizer = _of_pieces(reader)
    elif kind == "gpt2":
        tokenizer = _of_bytes(reader)
    else:
        raise InputError(f"GGUF tokenizer {kind!r} is not supported; supported: gpt2, llama")
    tokens, types = (_listed(reader, key) for key in ("tokens", "token_type"))
    if len(tokens) != len(types):
        raise InputError(
            f"the GGUF file has {len(tokens)} tokens and {len(types)} token types; "
            "download the file again"
        )
    for token, number in zip(tokens, types, strict=True):
        if number in (TokenType.CONTROL, TokenType.UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif number == TokenType.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    _put_around(tokenizer, reader, tokens)
    return tokenizer


def require_same_tokens(reader: GGUFReader, folder: Path) -> None:
    """Refuses a file whose tokenizer cuts text otherwise than that of the folder it came from.

    Compared are the text of every token, alone and behind a word, and a few long texts. White space
    around control tokens is left out: some tokenizers drop it there, which no file can say.

    Raises:
      InputError: names a text.
    """
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = build_tokenizer(reader)
    rows = range(min(theirs.get_vocab_size(), ours.get_vocab_size()))
    words = ours.decode_batch([[index] for index in rows], skip_special_tokens=True)
    texts = [*_TEXTS, *words, *(f"said {word} 12" for word in words)]
    for text, one, other in zip(
        texts, ours.encode_batch(texts), theirs.encode_batch(texts), strict=True
    ):
        if one.ids != other.ids:
            raise InputError(
                f"{folder}: from what a GGUF file can say, llama.cpp would read {text[:40]!r} as "
                f"{one.ids[:8]}, not as {other.ids[:8]}; use --format hf instead"
            )


def _of_bytes(reader: GGUFReader) -> Tokenizer:
    pre = field(reader, "tokenizer.ggml.pre")
    if pre not in SPLITTINGS:
        raise InputError(
            f"GGUF tokenizer 'gpt2' with pre-tokenizer {pre!r} is not supported; "
            f"supported: gpt2 with {', '.join(SPLITTINGS)}"
        )
    splitting, tokens = SPLITTINGS[pre], _listed(reader, "tokens")
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [_merge(str(merge), vocab) for merge in _listed(reader, "merges")]
    model = models.BPE(vocab=vocab, merges=merges, ignore_merges=splitting.ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitting.build()
    if splitting.normalizer is not None:
        tokenizer.normalizer = splitting.normalizer
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _listed(reader: GGUFReader, key: str) -> list[Any]:
    """A list that the tokenizer cannot do without."""
    found = field(reader, f"tokenizer.ggml.{key}")
    if not isinstance(found, list):
        raise InputError(f"the GGUF file has no list tokenizer.ggml.{key}; download the file again")
    return found


def _merge(text: str, vocab: Mapping[str, int]) -> tuple[str, str]:
    """The two tokens of a merge, which with their join are of the file's tokens."""
    left, _, right = text.partition(" ")
    if not {left, right, left + right} <= vocab.keys():
        raise InputError(
            f"GGUF merge {text[:40]!r} is not of the file's tokens; download the file again"
        )
    return left, right


def _of_pieces(reader: GGUFReader) -> Tokenizer:
    tokens, scores, types = (_listed(reader, key) for key in ("tokens", "scores", "token_type"))
    pieces = {
        token: score
        for token, score, kind in zip(tokens, scores, types, strict=True)
        if kind == TokenType.NORMAL
    }
    unknown = next(
        (t for t, kind in zip(tokens, types, strict=True) if kind == TokenType.UNKNOWN), None
    )
    vocab = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(
        vocab=vocab,
        merges=merges_of(pieces),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    prefixed = field(reader, "tokenizer.ggml.add_space_prefix") is not False
    spaces = normalizers.Replace(" ", SPACE)
    first = [normalizers.Prepend(SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*first, spaces])
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _put_around(tokenizer: Tokenizer, reader: GGUFReader, tokens: list[str]) -> None:
    """BOS before each text, and EOS after it, where the file asks for them."""
    # What llama.cpp does where a file does not say.
    usual = field(reader, "tokenizer.ggml.model") == "llama" or (
        field(reader, "tokenizer.ggml.pre") == "llama-bpe"
    )
    around = {"bos": [], "eos": []}
    for role, default in (("bos", usual), ("eos", False)):
        asked = field(reader, f"tokenizer.ggml.add_{role}_token")
        if not (default if asked is None else asked):
            continue
        index = field(reader, f"tokenizer.ggml.{role}_token_id")
        if index is None:
            raise InputError(f"GGUF tokenizer adds {role.upper()} but names no {role}_token_id")
        around[role].append((tokens[index], index))
    if around["bos"] or around["eos"]:
        named = {role: [f"{token}:0" for token, _ in found] for role, found in around.items()}
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join([*named["bos"], "$A:0", *named["eos"]]),
            special_tokens=list(dict.fromkeys([*around["bos"], *around["eos"]])),
        )


def _role_ids(reader: GGUFReader) -> dict[str, int]:
    ids = {
        ours: field(reader, f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in ROLES.items()
    }
    ids["eos"] = field(reader, "tokenizer.ggml.eos_token_id")
    if ids["pad"] is None:
        ids["pad"] = ids["eos"]
    return {role: token for role, token in ids.items() if token is not None}

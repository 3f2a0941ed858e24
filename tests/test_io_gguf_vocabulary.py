"""A tokenizer goes through a GGUF file and cuts text as before, or is refused."""

import json

import pytest
from gguf import GGUFReader, GGUFWriter, TokenType
from tiny_tokenizer import CHATML_TEMPLATE, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from hen_jax.core.errors import InputError
from hen_jax.io import gguf_tokenizer
from hen_jax.io.gguf_pieces import UNMERGED, merges_of, scores_of
from hen_jax.io.gguf_splitting import SPLITTINGS
from hen_jax.io.gguf_vocabulary import read_vocabulary

ROLES = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}}
WORDS = ["▁the", "▁rain", "▁in", "▁心", "ain", "▁▁", "in", "he", "th", "the"]


def folder_of(path, tokenizer: Tokenizer, roles=ROLES):
    path.mkdir()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(roles))
    (path / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    return path


def through_a_file(folder, path, ends=(2,), rows=2010):
    vocabulary = read_vocabulary(folder, rows, ends)
    writer = GGUFWriter(path, "llama")
    vocabulary.add_to(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocabulary, GGUFReader(path)


def of_bytes(name: str) -> Tokenizer:
    splitting, fields = SPLITTINGS[name], json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    fields["model"]["ignore_merges"] = splitting.ignore_merges
    tokenizer = Tokenizer.from_str(json.dumps(fields))
    tokenizer.pre_tokenizer = splitting.build()
    if splitting.normalizer is not None:
        tokenizer.normalizer = splitting.normalizer
    return tokenizer


def of_pieces(prefix: bool) -> Tokenizer:
    """As transformers converts a SentencePiece model: merges in the order of the scores."""
    special = ["<unk>", "<s>", "</s>"]
    single = sorted({*"".join(WORDS), *"arthein"})
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS, *single]
    vocab = {token: index for index, token in enumerate(tokens)}
    scores = {word: -float(rank) for rank, word in enumerate([*WORDS[4:], *WORDS[:4]])}
    merges = merges_of(scores | dict.fromkeys(single, -100.0))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    first = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s>:0 $A:0", special_tokens=[("<s>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize("name", SPLITTINGS)
def test_byte_level_bpe_keeps_its_splitting(tmp_path, name):
    folder = folder_of(tmp_path / "m", of_bytes(name))
    vocabulary, reader = through_a_file(folder, tmp_path / "v.gguf")
    assert vocabulary.pre == name
    gguf_tokenizer.require_same_tokens(reader, folder)
    assert (vocabulary.ids["bos"], vocabulary.ids["eos"]) == (1, 2)
    assert vocabulary.kinds[1] is TokenType.CONTROL
    assert vocabulary.tokens[-1] == "[PAD2009]"
    assert vocabulary.kinds[-1] is TokenType.UNUSED
    assert vocabulary.template == CHATML_TEMPLATE


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepieces_bpe_keeps_merges_bytes_and_bos(tmp_path, prefix):
    tokenizer = of_pieces(prefix)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = folder_of(tmp_path / "m", tokenizer, roles)
    vocabulary, reader = through_a_file(folder, tmp_path / "v.gguf", rows=300)
    assert vocabulary.pre is None
    assert vocabulary.add_bos
    assert vocabulary.prefix_space is prefix
    assert vocabulary.kinds[0] is TokenType.UNKNOWN
    assert vocabulary.kinds[3] is TokenType.BYTE
    gguf_tokenizer.require_same_tokens(reader, folder)
    back = gguf_tokenizer.build_tokenizer(reader)
    text = "the rain  in 心 é"
    assert back.encode(text).ids == tokenizer.encode(text).ids
    assert back.decode(back.encode(text).ids) == text


def test_scores_are_the_order_of_merges():
    merges = [("a", "b"), ("c", "d"), ("ab", "cd"), ("abc", "d")]
    tokens = ["a", "b", "c", "d", "ab", "cd", "abcd"]
    scores = scores_of(tokens, merges)
    assert scores == [UNMERGED] * 4 + [0.0, -1.0, -2.0]
    assert merges_of(dict(zip(tokens, scores, strict=True))) == merges[:3]


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ((2,), {"eos": 2}),
        ((0, 2), {"eos": 2, "eot": 0}),
        ((5, 2, 7), {"eos": 2, "eot": 5, "eom": 7}),
    ],
)
def test_all_ends_of_a_reply_are_named(tmp_path, ends, found):
    folder = folder_of(tmp_path / "m", of_bytes("smollm"))
    ids = read_vocabulary(folder, 2000, ends).ids
    assert {role: ids[role] for role in found} == found
    assert len(ids) == len(found) + 1


def test_without_a_bos_token_llama_cpp_is_still_told_one(tmp_path):
    folder = folder_of(tmp_path / "m", of_bytes("llama-bpe"), {"eos_token": "<|im_end|>"})
    vocabulary = read_vocabulary(folder, 2000, (2,))
    assert vocabulary.ids["bos"] == 2
    assert not vocabulary.add_bos


def unigram() -> Tokenizer:
    return Tokenizer(models.Unigram([("a", 0.0)], unk_id=0))


def other_splitting() -> Tokenizer:
    tokenizer = of_bytes("smollm")
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def other_template() -> Tokenizer:
    tokenizer = of_bytes("smollm")
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A:0 <|endoftext|>:0", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("make", "ends", "message"),
    [
        (unigram, (2,), "only BPE can be written as GGUF"),
        (other_splitting, (2,), "no pre-tokenizer that cuts text as this one does"),
        (other_template, (2,), "around a text, which a GGUF file cannot say"),
        (lambda: of_bytes("smollm"), (2, 3, 4, 5), "names one to 3 ends of a reply"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path, make, ends, message):
    folder = folder_of(tmp_path / "m", make())
    with pytest.raises(InputError, match=message):
        read_vocabulary(folder, 2000, ends)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file; a GGUF file holds"):
        read_vocabulary(tmp_path, 10, (2,))

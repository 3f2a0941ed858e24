"""Text while it comes: whole characters, nothing a stop string takes back, and nothing lost."""

import random

import pytest
from tiny_tokenizer import tiny_tokenizer

from hen_jax.text.fast_tokenizer import without_transformers
from hen_jax.text.streaming import TextStream, first_stop, grow, rest_of
from hen_jax.text.token_bytes import token_bytes, token_text

TOKENIZER = without_transformers(tiny_tokenizer())
SAID = "The rain — it's 你好, \U0001f327️\U0001f468‍\U0001f469‍\U0001f467! naïve café\n\n  end"


def plain(ids) -> str:
    return TOKENIZER.decode(list(ids), skip_special_tokens=True)


def streamed(ids, decode, stops=(), by: int = 1) -> list[str]:
    stream, given = TextStream(), []
    for start in range(0, len(ids), by):
        stream, text = grow(stream, ids[start : start + by], decode, stops)
        given.append(text)
    return [*given, rest_of(stream, decode)]


@pytest.mark.parametrize("by", [1, 3, 100])
def test_the_pieces_are_the_whole_and_hold_whole_characters(by):
    ids = TOKENIZER.backend_tokenizer.encode(SAID, add_special_tokens=False).ids
    found = streamed(ids, plain, by=by)
    assert "".join(found) == SAID
    assert all("�" not in piece for piece in found)
    assert by > 1 or sum(map(bool, found)) > 20  # it does come piece by piece


def test_any_ids_give_what_decoding_them_together_gives():
    rng = random.Random(0)
    for _ in range(300):
        ids = [rng.randrange(0, 2000) for _ in range(rng.randrange(1, 30))]
        bytes_only = [rng.randrange(3, 259) for _ in range(12)]  # single bytes, mostly no UTF-8
        for row in (ids, bytes_only):
            assert "".join(streamed(row, plain, by=rng.randrange(1, 5))) == plain(row)


def test_half_a_character_at_the_end_is_told_as_such():
    ids = TOKENIZER.backend_tokenizer.encode("a\U0001f327", add_special_tokens=False).ids
    found = streamed(ids[:-1], plain)
    assert found[0] == "a"
    assert "".join(found[:-1]) == "a"
    assert found[-1].strip("�") == ""
    assert found[-1]


def letters(ids) -> str:
    return "".join(map(chr, ids))


def test_what_a_stop_string_may_begin_with_is_held_back():
    pieces = streamed([ord(c) for c in "the EN ENxEND more"], letters, ("END", "xx"))
    assert pieces[:5] == ["t", "h", "e", " ", ""]
    assert "".join(pieces) == "the EN ENx"
    assert pieces[5:8] == ["", "EN ", ""]
    assert streamed([ord("E")], letters, ("END",)) == ["", "E"]
    assert "".join(streamed([*b"abEN"], letters, ("END",))) == "abEN"


def test_stop_strings_are_cut_at_the_first_wherever_tokens_end():
    rng = random.Random(1)
    for _ in range(500):
        text = "".join(rng.choice("ab") for _ in range(12))
        stops = tuple({"".join(rng.choice("ab") for _ in range(rng.randrange(1, 4)))} | {"bbb"})
        found = first_stop(text, stops)
        wanted = text if found is None else text[: found[0]]
        assert "".join(streamed([ord(c) for c in text], letters, stops, 3)) == wanted


def test_bytes_of_tokens_are_those_of_the_text():
    bytes_of = token_bytes(TOKENIZER.backend_tokenizer)
    ids = TOKENIZER.backend_tokenizer.encode(SAID, add_special_tokens=False).ids
    assert b"".join(map(bytes_of, ids)) == SAID.encode()
    assert bytes_of(1) == b"<|im_start|>"
    assert token_text(b" dog") == " dog"
    assert token_text(b"\xe4\xbd") == "bytes:\\xe4\\xbd"


def test_bytes_of_a_sentencepiece_vocabulary():
    from tokenizers import Tokenizer, decoders, models

    backend = Tokenizer(models.BPE({"▁dog": 0, "<0xE4>": 1, "s": 2}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    assert [token_bytes(backend)(n) for n in range(3)] == [b" dog", b"\xe4", b"s"]

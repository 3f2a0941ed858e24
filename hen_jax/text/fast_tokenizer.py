"""A tokenizer as training and replies need it, opened without transformers."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class FastTokenizer:
    """The part of transformers' fast tokenizers that hen_jax reads, under the same names."""

    backend_tokenizer: "Tokenizer"
    bos_token: str | None
    eos_token: str | None

    @property
    def added_tokens_decoder(self) -> "dict[int, AddedToken]":
        """Tokens that are whole words of their own, by id; control tokens are `special`."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the tokens that stand for no text."""
        return sorted(index for index, one in self.added_tokens_decoder.items() if one.special)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of `ids` as it is: no space before punctuation is taken away."""
        return self.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, rows: Iterable[Sequence[int]], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """`decode` of each row."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]


def without_transformers(tokenizer: "PreTrainedTokenizerFast | FastTokenizer") -> FastTokenizer:
    """The same tokenizer, but for what only a template's rendering needs."""
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    return FastTokenizer(
        tokenizer.backend_tokenizer,
        None if bos is None else str(bos),
        None if eos is None else str(eos),
    )

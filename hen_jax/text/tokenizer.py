"""The tokenizer of a local model folder, and the chat format that belongs to it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.records import verify
from hen_jax.text.fast_tokenizer import FastTokenizer
from hen_jax.text.turns import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class ChatTokenizer(NamedTuple):
    """How a model reads a conversation: a tokenizer, and the format that its template follows."""

    tokenizer: "PreTrainedTokenizerFast | FastTokenizer"
    chat_format: ChatFormat


def load_tokenizer(folder: str | Path) -> "PreTrainedTokenizerFast":
    """The fast tokenizer of a Hugging Face model folder; reads local files only.

    Code that the folder brings along (`auto_map`) is never run and nobody is asked about it: where
    transformers knows the tokenizer without it, that one is read, else the folder is refused.

    Raises:
      InputError: no such folder, no `tokenizer.json` in it, transformers cannot read it, or it is
        not what the folder's record says.
    """
    folder = Path(folder)
    verify(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; `hen import MODEL {folder}` makes one")
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"{folder}: no tokenizer.json; hen_jax needs a fast tokenizer, "
            "so save the model's with `tokenizer.save_pretrained` of transformers"
        )
    # Imported here: transformers takes two seconds, and most commands never need it.
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, use_fast=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{folder}: its tokenizer needs code of the folder's own (auto_map in "
                "tokenizer_config.json), which hen_jax never runs; if tokenizer.json says all, "
                "delete auto_map and set tokenizer_class to PreTrainedTokenizerFast"
            ) from error
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{folder}: transformers cannot read this tokenizer ({first_line}); mend "
            "tokenizer.json or tokenizer_config.json, or import it again"
        ) from error

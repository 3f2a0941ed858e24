"""Chat templates of public checkpoints are read, or refused for want of an end of the reply."""

import public_templates as templates
import pytest
from test_text_formats import BYTES, FAMILIES, _trained
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from hen_jax.core.errors import InputError
from hen_jax.text.detect import detect_format


def tokenizer_of(template: str, tokens: tuple[str, ...]) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(_trained(BYTES))
    backend.add_tokens([AddedToken(one, special=True, normalized=False) for one in tokens])
    bos, eos = tokens[:2]
    found = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    found.chat_template = template
    return found


@pytest.mark.parametrize("name", templates.READ)
def test_the_template_of_a_public_checkpoint_is_a_known_format(name):
    wanted, template, tokens = templates.READ[name]
    assert detect_format(tokenizer_of(template, tokens)).name == wanted


@pytest.mark.parametrize("name", templates.REFUSED)
def test_a_template_that_ends_no_reply_is_refused_in_one_line(name):
    with pytest.raises(InputError, match="is none of the known formats") as refused:
        detect_format(tokenizer_of(*templates.REFUSED[name]))
    assert "\n" not in str(refused.value)


def test_of_sixty_public_templates_nineteen_in_twenty_are_read():
    read, refused = len(FAMILIES.keys() | templates.READ.keys()), len(templates.REFUSED)
    assert read + refused >= 60
    assert read / (read + refused) >= 0.95

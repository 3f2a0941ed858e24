"""Every family's conversations: ids equal the template's on any text, and only replies train."""

import functools
import itertools
import string

import chat_templates as templates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.examples import Document, encode
from hen_jax.text.chat import render, render_prompt, stop_ids
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import SETTINGS, detect_format
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.text.turns import ChatFormat

BYTES, SPACES_FIRST, SPACES_EACH, NO_SPACES = "bytes", "first", "each", "none"
"""How a tokenizer splits: byte level (Llama 3, Qwen, Tekken), SentencePiece with a space put before
the first text or before each (Mistral v3; Llama 2 and Phi-3), or before none (Gemma)."""

INST = ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
IM = ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|im_sep|>")
PHI3 = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
END = ("<|endoftext|>", "<|endoftext|>")
OF_TEXT = ("<|begin_of_text|>", "<|end_of_text|>")
GRANITE = ("<|end_of_text|>", "<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")
COHERE = ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>",
          "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")  # fmt: skip
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")

FAMILIES = {
    "smollm2": ("chatml", templates.SMOLLM2, BYTES, IM),
    "qwen2": ("chatml", templates.QWEN2, BYTES, IM),
    "qwen2.5": ("chatml", templates.QWEN25, BYTES, IM),
    "chatml": ("chatml", templates.CHATML, BYTES, IM),
    "qwen3": ("qwen3", templates.QWEN3, BYTES, IM),
    "phi4": ("phi4", templates.PHI4, BYTES, IM),
    "llama3": ("llama3", templates.LLAMA3, BYTES, LLAMA3),
    "llama3.1": ("llama3.1", templates.LLAMA31, BYTES, LLAMA3),
    "llama3.2": ("llama3.1", templates.LLAMA32, BYTES, LLAMA3),
    "phi3": ("phi3", templates.PHI3, SPACES_EACH, PHI3),
    "gemma2": ("gemma", templates.GEMMA2, NO_SPACES, GEMMA),
    "gemma3": ("gemma", templates.GEMMA3, NO_SPACES, GEMMA),
    "llama2": ("llama2", templates.LLAMA2, SPACES_EACH, INST[:2]),
    "mixtral": ("mistral-v1-first", templates.MISTRAL_FIRST, SPACES_EACH, INST[:2]),
    "mistral-v1": ("mistral-v1", templates.MISTRAL_V1, SPACES_EACH, INST[:2]),
    "mistral-v3": ("mistral-v3", templates.MISTRAL_V3, SPACES_FIRST, INST),
    "mistral-nemo": ("mistral-v3-tekken", templates.MISTRAL_TEKKEN, BYTES, INST),
    "mistral-v7": ("mistral-v7", templates.MISTRAL_V7, SPACES_FIRST, INST),
    "mistral-v7-tekken": ("mistral-v7-tekken", templates.MISTRAL_V7_TEKKEN, BYTES, INST),
    "zephyr": ("zephyr", templates.ZEPHYR, SPACES_EACH, INST[:2]),
    "stablelm": ("zephyr", templates.ZEPHYR, BYTES, END),
    "phi4-mini": ("phi4-mini", templates.PHI4_MINI, BYTES, (*END, *PHI3[2:])),
    "granite": ("granite", templates.GRANITE, BYTES, GRANITE),
    "internlm2": ("internlm2", templates.INTERNLM2, NO_SPACES, ("<s>", "</s>", *IM[1:3])),
    "tulu3": ("tulu", templates.OLMO2, BYTES, OF_TEXT),
    "falcon3": ("falcon3", templates.FALCON3, BYTES, END),
    "olmo2": ("tulu", templates.OLMO2, BYTES, END),
    "command-r": ("command-r", templates.COMMAND_R, BYTES, COHERE),
    "deepseek-v3": ("deepseek-v3", templates.DEEPSEEK_V3, BYTES, DEEPSEEK),
    "openchat": ("openchat", templates.OPENCHAT, BYTES, ("<s>", "<|end_of_turn|>")),
}
"""Checkpoint -> its format, what its template writes, how its tokenizer splits, control tokens."""

NO_SYSTEM = ("gemma2", "mixtral")  # these templates refuse a system message
SYSTEM_LAST = ("mistral-v3", "mistral-nemo")  # these forget it once the last turn is answered


@functools.cache
def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    _, template, splits, controls = FAMILIES[family]
    added = [
        # Phi-3's swallow the white space after them, all but the end of text.
        AddedToken(t, special=True, normalized=False, rstrip=controls is PHI3 and t not in PHI3[:2])
        for t in controls
    ]
    if family == "qwen3":
        added += [AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")]
    backend = Tokenizer.from_str(_trained(splits))
    backend.add_tokens(added)
    found = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=controls[0], eos_token=controls[1]
    )
    found.chat_template = template
    return found


LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def _trained(splits: str) -> str:
    backend = Tokenizer(models.BPE(byte_fallback=splits != BYTES, unk_token="<unk>", fuse_unk=True))
    alphabet, specials = list("▁\n[]/<>" + string.ascii_letters), ["<unk>"]
    if splits == BYTES:
        words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, level])
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        specials += [f"<0x{n:02X}>" for n in range(256)]
        space = [normalizers.Prepend("▁")] if splits == SPACES_EACH else []
        if splits == SPACES_FIRST:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            backend.normalizer = normalizers.Sequence([*space, normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
        max_token_length=12,
    )
    lines = samples.path("hed/hed.en.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    texts = [said for line in lines for said in line.split('"')]
    backend.train_from_iterator([*texts, *["system user assistant\n\n\n"] * 50], trainer)
    return backend.to_str()


@functools.cache
def format_of(family: str) -> ChatFormat:
    return detect_format(tokenizer_of(family))


def template_ids(family: str, messages, *, prompt: bool = False) -> list[int]:
    rows = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer_of(family).apply_chat_template(
        rows, tokenize=True, return_dict=False, add_generation_prompt=prompt, **SETTINGS
    )


def ids(family: str, messages) -> list[int]:
    conversation = Conversation(tuple(messages))
    return render(
        conversation, ChatTokenizer(tokenizer_of(family), format_of(family))
    ).tokens.tolist()


def prompt_ids(family: str, messages) -> list[int]:
    return render_prompt(messages, ChatTokenizer(tokenizer_of(family), format_of(family))).tolist()


def trained_text(family: str, messages) -> str:
    """What trains, decoded; the ends of replies as `|`."""
    tokenizer = tokenizer_of(family)
    rendered = render(Conversation(tuple(messages)), ChatTokenizer(tokenizer, format_of(family)))
    stop = stop_ids(ChatTokenizer(tokenizer, format_of(family)))[0]
    stretches = np.split(
        rendered.tokens[rendered.mask], np.flatnonzero(rendered.tokens[rendered.mask] == stop) + 1
    )
    return "".join(tokenizer.decode(part[:-1]) + "|" for part in stretches if len(part))


def talk(*said: str, system: str | None = None) -> list[Message]:
    roles = itertools.cycle(("user", "assistant"))
    first = [] if system is None else [Message("system", system)]
    return [*first, *(Message(role, text) for role, text in zip(roles, said, strict=False))]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_detected(family):
    assert format_of(family).name == FAMILIES[family][0]


def test_what_a_template_says_by_default_is_found():
    said = {family: format_of(family).default_system for family in ("chatml", "qwen2", "qwen2.5")}
    assert said == {
        "chatml": None,
        "qwen2": "You are a helpful assistant.",
        "qwen2.5": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    }


CONTROLS = {token for _, _, _, controls in FAMILIES.values() for token in controls}
SAID = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t\u3000a好"), max_size=12
).filter(lambda text: not any(token in text for token in CONTROLS))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(FAMILIES)), st.lists(SAID, min_size=2, max_size=6), st.none() | SAID)
def test_ids_equal_the_template_on_any_text(family, said, system):
    system = None if family in NO_SYSTEM else system
    if family == "phi3" and system == "":
        system = None  # the template leaves an empty one out
    messages = talk(*said[: len(said) // 2 * 2], system=system)
    assert prompt_ids(family, messages[:-1]) == template_ids(family, messages[:-1], prompt=True)
    if not (system is not None and family in SYSTEM_LAST):
        assert ids(family, messages) == template_ids(family, messages)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(FAMILIES)), st.lists(SAID, min_size=2, max_size=6), st.none() | SAID)
def test_a_prompt_is_the_beginning_of_the_conversation_and_the_rest_of_it_trains(
    family, said, system
):
    """What trains in the last turn is what a model would have to write after the prompt."""
    said = [
        f"x{text}" for text in said[: len(said) // 2 * 2]
    ]  # a reply may share a leading newline
    messages = talk(*said, system=system)
    tokenizer, chat_format = tokenizer_of(family), format_of(family)
    whole = render(Conversation(tuple(messages)), ChatTokenizer(tokenizer, chat_format))
    prompt = render_prompt(messages[:-1], ChatTokenizer(tokenizer, chat_format))
    assert whole.tokens[: len(prompt)].tolist() == prompt.tolist()
    stop = len(prompt) + whole.tokens[len(prompt) :].tolist().index(
        stop_ids(ChatTokenizer(tokenizer, chat_format))[0]
    )
    assert whole.mask[len(prompt) : stop + 1].all()
    assert not whole.mask[stop + 1 :].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_replies_and_their_stop_tokens_train(family):
    messages = talk("Hi", "Hello you", "Why?", "So 好.", system="Be kind.")
    space = " " if format_of(family).assistant.lead else ""
    end = " " if format_of(family).assistant.stop.startswith(" ") else ""
    heard = trained_text(family, messages).replace("▁", " ")
    expected = f"{space}Hello you{end}|{space}So 好.{end}|"
    assert heard.replace(" ", "") == expected.replace(" ", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_typed_by_a_person_stay_text(family):
    tokenizer = tokenizer_of(family)
    plain, typed = (
        ids(family, talk(f"ok {word} go", f"ok {word} go", system=f"be {word}"))
        for word in ("x", "".join(tokenizer.all_special_tokens))
    )
    controls = tokenizer.all_special_ids
    assert [t for t in typed if t in controls] == [t for t in plain if t in controls]


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "llama2", "mistral-v1", "mistral-nemo"])
def test_turns_that_do_not_alternate_are_made_to(family):
    user, reply = Message("user", "Hi"), Message("assistant", "Yes")
    twice = [user, Message("user", "you"), reply, Message("assistant", "No")]
    assert ids(family, twice) == template_ids(family, talk("Hi\nyou", "Yes\nNo"))
    assert ids(family, [reply, user, reply]) == template_ids(family, talk("", "Yes", "Hi", "Yes"))


@pytest.mark.parametrize("family", NO_SYSTEM)
def test_a_system_message_that_the_template_refuses_opens_the_first_user_turn(family):
    messages = talk("Hi", "Yes", "Why?", "So.", system="Be kind.")
    merged = talk("Be kind.\n\nHi", "Yes", "Why?", "So.")
    assert ids(family, messages) == template_ids(family, merged)


@pytest.mark.parametrize("family", SYSTEM_LAST)
def test_a_system_message_that_the_template_forgets_stays_in_the_last_user_turn(family):
    messages = talk("Hi", "Yes", "Why?", "So.", system="Be kind.")
    kept = talk("Hi", "Yes", "Be kind.\n\nWhy?", "So.")
    assert ids(family, messages) == template_ids(family, kept)


def test_qwen3_trains_a_thought_but_not_the_empty_one_that_stands_for_none():
    thought = "<think>\nHm.\n</think>\n\nYes"
    for older, newer, trained in (
        ("Yes", "No", "Yes|No|"),
        (thought, "No", "Yes|No|"),
        ("No", thought, f"No|{thought}|"),
    ):
        messages = talk("Hi", older, "Why?", newer)
        assert ids("qwen3", messages) == template_ids("qwen3", messages)
        assert trained_text("qwen3", messages) == trained


THOUGHTS = st.sampled_from([None, "", "Hm.", "\nHm.\n\nSo.\n", "</think>"])
SPOKEN = st.sampled_from(["Yes", "\nYes", "<think>\nWell.\n</think>\n\nYes", "<think>No"])
ASKED = st.sampled_from(["Hi", "<tool_response>\n7\n</tool_response>"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.builds(Message, st.just("assistant"), SPOKEN, THOUGHTS)
        | st.builds(Message, st.just("user"), ASKED),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_thoughts_stand_where_the_template_writes_them(messages):
    """Also two thinking replies after the last question, and a tool's response for none."""
    rows = [
        {"role": one.role, "content": one.content}
        | ({} if one.thought is None else {"reasoning_content": one.thought})
        for one in messages
    ]
    theirs = tokenizer_of("qwen3").apply_chat_template(
        rows, tokenize=True, return_dict=False, **SETTINGS
    )
    assert ids("qwen3", messages) == theirs


def test_a_thought_trains_with_its_reply_and_is_refused_where_it_has_no_place():
    said = [
        Message("user", "Hi"),
        Message("assistant", "Yes", "First."),
        Message("assistant", "No", "Then."),
    ]
    both = "<think>\nFirst.\n</think>\n\nYes|<think>\nThen.\n</think>\n\nNo|"
    assert trained_text("qwen3", said) == both
    for family in ("smollm2", "gemma2", "llama3"):
        with pytest.raises(InputError, match=r"a reply has a thought .* has no place for one"):
            ids(family, said)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_that_is_told_not_to_train_does_not(family):
    first, second = Message("assistant", "Yes", trains=False), Message("assistant", "No")
    asked = Message("user", "Hi")
    messages = [asked, first, asked, second]
    assert ids(family, messages) == ids(family, talk("Hi", "Yes", "Hi", "No"))
    assert trained_text(family, messages) == trained_text(family, [asked, asked, second])
    everything = [asked, first, asked, Message("assistant", "No", trains=True)]
    assert trained_text(family, everything) == trained_text(family, messages)


TOOLS = {
    "smollm2": "own", "qwen2.5": "user", "qwen3": "user", "llama3.1": "quoted", "phi4": "own",
    "gemma2": "refused", "mistral-v3": "refused", "deepseek-v3": "refused",
}  # fmt: skip


@pytest.mark.parametrize(("family", "tools"), TOOLS.items())
def test_what_a_tool_answers_stands_where_the_template_writes_it_and_never_trains(family, tools):
    assert format_of(family).tools == tools
    said = [
        Message("user", "Is there a seat?"),
        Message("assistant", '<tool_call>\n{"name": "seats"}\n</tool_call>'),
        Message("tool", ' {"free": 3, "名": "\\"x\\""}\n'),
        Message("tool", "second"),
        Message("assistant", "Three."),
        Message("user", "Take one."),
    ]
    if tools == "refused":
        with pytest.raises(InputError, match=r"a message of the tool, .* has no place for one"):
            ids(family, said)
        return
    for end in range(1, len(said) + 1):
        assert ids(family, said[:end]) == template_ids(family, said[:end])
        if said[end - 1].role != "assistant":
            asked = template_ids(family, said[:end], prompt=True)
            assert prompt_ids(family, said[:end]) == asked
    assert "free" not in trained_text(family, said)
    assert "Three." in trained_text(family, said)


@pytest.mark.parametrize("family", ["smollm2", "qwen3", "llama3.1"])
def test_a_tool_cannot_write_control_tokens(family):
    """A page that a tool fetched may try to end the turn."""
    controls = tokenizer_of(family).all_special_ids
    asked = talk("Look.", "I look.")
    typed, plain = (
        ids(family, [*asked, Message("tool", answer)]) for answer in ("<|im_end|><|eot_id|>", "so")
    )
    assert [t for t in typed if t in controls] == [t for t in plain if t in controls]


def test_replies_joined_into_one_turn_train_together_or_not_at_all():
    mixed = [Message("user", "Hi"), Message("assistant", "Yes", trains=False),
             Message("assistant", "No")]  # fmt: skip
    assert trained_text("smollm2", mixed) == "No|"
    with pytest.raises(InputError, match="two replies follow each other of which one trains"):
        ids("gemma2", mixed)


def test_an_unknown_template_is_refused_by_name():
    for family, change in (
        ("qwen3", ("<think>\\n'", "<think>'")),
        ("llama2", ("' [/INST]'", "'[/INST]'")),
        ("gemma3", ("+ '<end_of_turn>\n'", "+ '<end_of_turn>'")),
        ("llama3.1", ("December 2023", "December 2024")),
    ):
        tokenizer = tokenizer_of.__wrapped__(family)
        assert change[0] in tokenizer.chat_template
        tokenizer.chat_template = tokenizer.chat_template.replace(*change)
        with pytest.raises(InputError, match=r"none of the known formats \(chatml, qwen3, phi4"):
            detect_format(tokenizer)


def test_a_family_is_shortened_as_it_is_rendered():
    """By cutting ids or by rendering anew: a shortened conversation is that conversation."""
    messages = talk("one " * 9, "Yes.", "two", "No.", "three", "So.", system="Be kind.")
    for family in FAMILIES:
        tokenizer, chat_format = tokenizer_of(family), format_of(family)
        shorter = Conversation((messages[0], *messages[3:]))
        exact = len(render(shorter, ChatTokenizer(tokenizer, chat_format)).tokens) - 1
        document = Document("a", "a", Conversation(tuple(messages)))
        (made,) = encode(
            [document], ChatTokenizer(tokenizer, chat_format), max_length=exact
        ).examples
        assert (
            made.tokens.tolist()
            == render(shorter, ChatTokenizer(tokenizer, chat_format)).tokens.tolist()
        )

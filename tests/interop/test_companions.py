"""Where a reply ends and where a reward is read, in transformers as here."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

sys.path.append(str(Path(__file__).parents[1]))
from test_families import ours
from tiny_families import random_leaves

from hen_jax.core.files import RECORD
from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import companions, hf, peft
from hen_jax.models.config import LoraConfig
from hen_jax.runs.import_model import import_model
from hen_jax.runs.tiny_model import CONFIG
from hen_jax.verbs.generate.generate import GenerateRequest, generate_replies

DOCUMENTS = [
    "<|im_start|>user\nIt rains.<|im_end|>\n<|im_start|>assistant\nOh no.<|im_end|>",
    "<|im_start|>assistant\nYes, and it is cold as well, they say.<|im_end|>",
    "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Its <|im_end|> ends a reply and pads; <|endoftext|> (0) occurs in no document."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    import_model("tiny", folder)
    return folder


def scores_here(config, params, tokenizer):
    """Each document by itself: nothing is padded."""
    scores = []
    for document in DOCUMENTS:
        ids = np.asarray([tokenizer(document)["input_ids"]])
        positions = np.arange(ids.shape[1])[None]
        scores.append(ours(config, params, ids, positions, np.ones_like(ids))[0])
    return np.asarray(scores)


def scores_there(model, tokenizer, side):
    padded = tokenizer(DOCUMENTS, padding=True, padding_side=side, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(padded.input_ids, attention_mask=padded.attention_mask).logits[:, 0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_document_that_ends_in_the_stop_token_has_the_same_reward_there(tiny, tmp_path, side):
    config = dataclasses.replace(CONFIG, score_head=True)
    params, adapter = random_leaves(config, LoraConfig(rank=2, alpha=4.0))
    hf.write_model(tmp_path / "m", config, params, source_folder=tiny, stops=(2,))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", dtype=torch.float32)
    here = scores_here(config, params, tokenizer)
    assert np.abs(scores_there(model, tokenizer, side).numpy() - here).max() <= 1e-4
    assert np.abs(here).min() > 1e-2

    # An adapter with a head: its own tokenizer pads, the base is told the pad id as its card says.
    adapter = unflatten(flatten(adapter)) | {"score": params["score"]}
    peft.write_adapter(
        tmp_path / "a",
        config,
        LoraConfig(rank=2, alpha=4.0),
        adapter,
        base_model=None,
        source_folder=tiny,
        stops=(2,),
    )
    still = {path: 0 * leaf for path, leaf in model.state_dict().items() if "score" in path}
    model.load_state_dict(still, strict=False)
    assert f"pad_token_id={model.config.pad_token_id})" in (tmp_path / "a/README.md").read_text()
    tuned = PeftModel.from_pretrained(model, tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    alone = [
        tuned(torch.tensor([tokenizer(document)["input_ids"]])).logits.item()
        for document in DOCUMENTS
    ]
    there = scores_there(tuned, tokenizer, side).detach().numpy()
    assert np.abs(there - np.asarray(alone)).max() <= 1e-4
    assert np.abs(there - here).max() > 1e-3  # the adapter is in


def test_generation_ends_where_transformers_ends_it(tiny, tmp_path):
    out = tmp_path / "m"
    params = hf.read_params(tiny, CONFIG)
    hf.write_model(out, CONFIG, params, source_folder=tiny)
    ask = GenerateRequest(out, ("hi",), max_new_tokens=12, temperature=0.0)
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, return_dict=False
    )
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    plain = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
    plain = plain[0, len(prompt) :].tolist()
    fields = json.loads((out / "generation_config.json").read_text())
    (out / RECORD).unlink()  # what follows is not as it was written
    for place in (2, 6):  # a token that it says anyway becomes one of the ends
        ends = [2, plain[place]]
        (out / "generation_config.json").write_text(json.dumps(fields | {"eos_token_id": ends}))
        assert companions.end_ids(out) == tuple(ends)
        model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        there = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
        (here,) = generate_replies(ask)
        assert here.tokens == there.shape[1] - len(prompt) < 12
        assert here.stopped

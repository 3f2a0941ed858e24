"""A trained reward model scores in transformers and PEFT as `hen score` does."""

import json

import numpy as np
import pytest
import tiny_run
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hen_jax.data import samples
from hen_jax.data.schemas import read_pairs
from hen_jax.runs.export.folders import export
from hen_jax.runs.tiny_model import write_tiny_model
from hen_jax.verbs.score import Scoring, score

FILE = samples.path("crossed/level.en.jsonl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base, a LoRA run on it, and its two exports."""
    folder = tmp_path_factory.mktemp("reward")
    write_tiny_model(folder / "base", None)
    tiny_run.run(
        folder / "base",
        folder / "run",
        recipe="reward",
        sources=({"schema": "crossed", "path": str(FILE)},),
        data={"row_length": 352, "batch_size": 8},
        epochs=0.1,
        loop={"evaluators": ()},
    )
    for form in ("hf", "peft"):
        export(folder / "run", folder / form, form)
    return folder


def there(model, tokenizer, conversations) -> np.ndarray:
    """Scores by transformers, in one padded batch."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": one.role, "content": one.content} for one in conversation.messages],
            tokenize=False,
        )
        for conversation in conversations
    ]
    padded = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        seen = {key: padded[key] for key in ("input_ids", "attention_mask")}
        return model.eval()(**seen).logits[:, 0].numpy()


@pytest.mark.parametrize("form", ["hf", "peft"])
def test_the_same_score_for_every_document(trained, tmp_path, form):
    pairs = read_pairs(FILE, "crossed")[:20]
    whole = {"model": trained / "hf"}
    if form == "peft":
        whole = {"model": trained / "base", "adapter": trained / "peft"}
    score(Scoring(input=FILE, schema="crossed", out=tmp_path / "out.jsonl", **whole))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    ours = np.asarray([(line["chosen"], line["rejected"]) for line in lines[:20]])
    tokenizer = AutoTokenizer.from_pretrained(trained / form)
    options = {} if form == "hf" else {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
    model = AutoModelForSequenceClassification.from_pretrained(whole["model"], **options)
    if form == "peft":
        model = PeftModel.from_pretrained(model, trained / "peft")
    for side in (0, 1):
        found = there(model, tokenizer, [pair.conversations()[side] for pair in pairs])
        np.testing.assert_allclose(found, ours[:, side], atol=1e-4)
    assert ours.std() > 1e-2

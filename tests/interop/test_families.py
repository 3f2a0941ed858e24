"""Every family beside transformers: tiny random weights, float32, equal logits and equal bytes."""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

sys.path.append(str(Path(__file__).parents[1]))
from tiny_families import CONFIGS, random_leaves

from hen_jax.core.trees import flatten
from hen_jax.io import hf
from hen_jax.models.config import DIMENSION_LABELS, Execution
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.models.heads import document_outputs, row_scores

families = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
TOKENS = np.random.default_rng(5).integers(1, 96, (2, 40))


@partial(jax.jit, static_argnums=0)
def ours(config, params, tokens, positions, segments):
    """Logits, or the scores of a reward model."""
    graphdef = split(abstract(config, execution=Execution(remat="none"))).graphdef
    model = merge(graphdef, params)
    hidden = model.hidden(tokens, positions, segments)
    if config.score_head:
        return row_scores(model.score(hidden, segments))
    return model.logits(hidden)


def theirs(model, tokens, positions, attention_mask=None):
    mask = None if attention_mask is None else torch.from_numpy(attention_mask)
    with torch.no_grad():
        out = model(
            torch.from_numpy(tokens),
            position_ids=torch.from_numpy(positions),
            attention_mask=mask,
            use_cache=False,
        )
    return out.logits.numpy()


def loaded(folder, auto=AutoModelForCausalLM):
    # Soft caps are only in their eager attention.
    return auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def rows(*lengths, width=40, left=False):
    """Tokens, positions and segments of rows that hold one padded document each."""
    tokens = TOKENS[np.arange(len(lengths)) % 2, :width].copy()
    at = np.arange(width)[None] - ([[width - n] for n in lengths] if left else 0)
    real = (at >= 0) & (at < np.asarray(lengths)[:, None])
    tokens[~real] = 0
    return tokens, np.where(real, at, 0), real.astype(np.int64)


def packed(*lengths):
    """One row of several documents."""
    positions = np.concatenate([np.arange(n) for n in lengths])[None]
    segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)])[None]
    return TOKENS[:1, : sum(lengths)], positions, segments


@families
def test_our_folder_gives_our_logits_there(tmp_path, config):
    params, _ = random_leaves(config)
    hf.write_model(tmp_path / "m", config, params, max_shard_bytes=20_000)
    model = loaded(tmp_path / "m")
    cases = {
        "beyond the window and the first length": rows(40, 40),
        "short": rows(12, 12, width=12),
        "padded at the right": rows(31, 40),
        "padded at the left": rows(31, 40, left=True),
        "packed, short": packed(13, 1, 9),
        "packed, long": packed(21, 18),
    }
    for name, (tokens, positions, segments) in cases.items():
        mask = None if "packed" in name else segments
        found = theirs(model, tokens, positions, mask)
        expected = ours(config, params, tokens, positions, segments)
        real = segments > 0
        assert np.abs(found - expected)[real].max() <= 1e-4, name
        assert np.abs(found[real]).max() > 0.1, name


@families
def test_their_folder_goes_through_bit_for_bit(tmp_path, config):
    params, _ = random_leaves(config)
    hf.write_model(tmp_path / "seed", config, params)
    model = loaded(tmp_path / "seed").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    config_read = hf.read_config(tmp_path / "theirs")
    assert config_read == config
    read = hf.read_params(tmp_path / "theirs", config)
    hf.write_model(tmp_path / "back", config, read, source_folder=tmp_path / "theirs")
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("theirs", "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert tensor.tobytes() == after[name].tobytes(), name


@families
def test_a_reward_model_scores_the_same_there(tmp_path, config):
    config = dataclasses.replace(config, score_head=True)
    params, _ = random_leaves(config)
    source = tmp_path / "source"
    source.mkdir()
    (source / "generation_config.json").write_text('{"pad_token_id": 0}')
    hf.write_model(tmp_path / "m", config, params, source_folder=source)
    model = loaded(tmp_path / "m", AutoModelForSequenceClassification)
    for left in (False, True):
        tokens, positions, segments = rows(33, 40, left=left)
        found = theirs(model, tokens, positions, segments)[:, 0]
        expected = ours(config, params, tokens, positions, segments)
        assert np.abs(found - expected).max() <= 1e-4
    model.save_pretrained(tmp_path / "theirs")
    assert hf.read_config(tmp_path / "theirs") == config
    read = flatten(hf.read_params(tmp_path / "theirs", config))
    assert all(np.array_equal(leaf, read[path]) for path, leaf in flatten(params).items())


def test_ratings_by_dimension_are_the_same_there(tmp_path):
    """And their names survive a save by transformers."""
    config = dataclasses.replace(CONFIGS["llama"], score_head=True, score_labels=DIMENSION_LABELS)
    params, _ = random_leaves(config)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/generation_config.json").write_text('{"pad_token_id": 0}')
    hf.write_model(tmp_path / "m", config, params, source_folder=tmp_path / "source")
    model = loaded(tmp_path / "m", AutoModelForSequenceClassification)
    tokens, positions, segments = rows(33, 40)
    decoder = merge(split(abstract(config, execution=Execution(remat="none"))).graphdef, params)
    outputs = decoder.score.outputs(decoder.hidden(tokens, positions, segments))
    expected = np.asarray(document_outputs(outputs, segments, 1))[:, 0]
    assert expected.shape == (2, 7)
    assert np.abs(theirs(model, tokens, positions, segments) - expected).max() <= 1e-4
    model.save_pretrained(tmp_path / "theirs")
    assert hf.read_config(tmp_path / "theirs") == config


def test_rows_on_both_sides_of_longropes_length_are_each_read_as_alone(tmp_path):
    config = CONFIGS["phi3"]
    params, _ = random_leaves(config)
    hf.write_model(tmp_path / "m", config, params)
    model = loaded(tmp_path / "m")
    tokens, positions, segments = rows(10, 40)
    together = ours(config, params, tokens, positions, segments)
    for row, length in enumerate((10, 40)):
        alone = theirs(model, tokens[row : row + 1, :length], positions[row : row + 1, :length])
        assert np.abs(together[row, :length] - alone[0]).max() <= 1e-4

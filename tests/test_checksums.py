"""Damage is an error, never believed: flipped bytes in models, adapters, records, checkpoints."""

import json
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_model import CONFIG

from hen_jax.core import checksums
from hen_jax.core.checksums import file_sha256
from hen_jax.core.errors import InputError, StoppedError
from hen_jax.core.records import read_record, verified, verify
from hen_jax.core.trees import unflatten
from hen_jax.io import hf, names, peft
from hen_jax.models.config import LoraConfig
from hen_jax.runs import earlier
from hen_jax.runs.abstract import read_architecture
from hen_jax.runs.export.folders import export
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.import_model import import_model
from hen_jax.runs.record import claim
from hen_jax.text.detect import open_chat_tokenizer
from hen_jax.text.tokenizer import load_tokenizer
from hen_jax.verbs.generate.generate import GenerateRequest, generate_replies

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "model")


@pytest.fixture
def adapter(tmp_path):
    lora = LoraConfig(2, 4.0, ("q",))
    shapes = names.tensor_shapes(CONFIG, lora)
    leaf = {
        kind: np.ones(shapes[f"blocks/attn/q/{kind}"], np.float32) for kind in ("lora_a", "lora_b")
    }
    tree = {"blocks": {"attn": {"q": leaf}}}
    peft.write_adapter(tmp_path / "adapter", CONFIG, lora, tree, base_model="org/base")
    return tmp_path / "adapter"


def flip(path: Path, place: int | None = None, bit: int = 1):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= bit
    path.write_bytes(content)


def generate_from(folder: Path):
    return generate_replies(GenerateRequest(model=folder, prompts=("Hello",), max_new_tokens=1))


OPENINGS: dict[str, Callable[[Path], object]] = {
    "config": hf.read_config,
    "tokenizer": load_tokenizer,
    "weights": lambda folder: hf.read_params(folder, hf.read_config(folder)),
    "plan": lambda folder: read_architecture(str(folder)),
    "show": open_chat_tokenizer,
    "import": lambda folder: import_model(str(folder), folder.parent / "out"),
    "generate": generate_from,
}
ONLY_SMALL = ("config", "tokenizer", "plan", "show")


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_flipped_byte_of_any_file_is_found_at_every_opening(model, opening):
    record = read_record(model)
    assert record is not None
    assert set(record["sha256"]) == {path.name for path in model.iterdir()} - {"hen_jax.json"}
    for name in record["sha256"]:
        if name == "README.md" or (name == WEIGHTS and opening in ONLY_SMALL):
            continue
        before = (model / name).read_bytes()
        flip(model / name)
        with pytest.raises(InputError, match=rf"{name} does not have the SHA-256.*HEN_VERIFY=off"):
            OPENINGS[opening](model)
        (model / name).unlink()
        with pytest.raises(InputError, match=rf"{name}.*is missing|no tokenizer|no model folder"):
            OPENINGS[opening](model)
        (model / name).write_bytes(before)
    assert not (model.parent / "out").exists()


def test_the_card_may_be_edited(model):
    (model / "README.md").write_text("mine")
    assert hf.read_params(model, hf.read_config(model))


@pytest.mark.parametrize("way", ["delete the record", "HEN_VERIFY"])
def test_who_means_the_change_has_a_way_out(model, way, monkeypatch):
    flip(model / WEIGHTS, -5)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    if way == "HEN_VERIFY":
        monkeypatch.setenv("HEN_VERIFY", "off")
    else:
        (model / "hen_jax.json").unlink()
    assert hf.read_params(model, hf.read_config(model))
    load_tokenizer(model)


def test_a_flipped_byte_of_an_adapter_is_found(adapter):
    for name in ("adapter_model.safetensors", "adapter_config.json", "hen_jax.json"):
        before = (adapter / name).read_bytes()
        flip(adapter / name, len(before) // 3)
        with pytest.raises(InputError):
            peft.read_adapter(adapter, CONFIG)
        (adapter / name).write_bytes(before)
    assert peft.read_adapter(adapter, CONFIG)


@pytest.mark.parametrize("folder", ["tiny_base", "tiny_finished"])
def test_no_flipped_bit_of_a_record_changes_what_it_says(folder, request, tmp_path):
    source = request.getfixturevalue(folder) / "hen_jax.json"
    path = tmp_path / "hen_jax.json"
    said, size = read_record(source.parent), source.stat().st_size
    rng, refused = random.Random(0), 0
    for _ in range(100):
        path.write_bytes(source.read_bytes())
        flip(path, rng.randrange(size), 1 << rng.randrange(8))
        try:
            found = read_record(tmp_path)
        except InputError:
            refused += 1
        else:  # a blank that is another blank now, or the seal's own name
            assert found is not None
            assert found == said or {key: found[key] for key in said} == said
    assert refused > 66


def test_a_run_with_a_damaged_record_goes_nowhere(tiny_finished, tmp_path):
    run = shutil.copytree(tiny_finished, tmp_path / "run")
    text = (run / "hen_jax.json").read_text()
    assert '"rank": 2' in text
    (run / "hen_jax.json").write_text(text.replace('"rank": 2', '"rank": 3'))
    for act in (earlier.previous_run, open_trained, lambda run: claim(run, json.loads(text))):
        with pytest.raises(InputError, match=r"hen_jax\.json is not as hen_jax wrote it"):
            act(run)


def test_an_export_never_takes_an_older_checkpoint_unasked(tiny_finished, tmp_path):
    run = shutil.copytree(tiny_finished, tmp_path / "run")
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir())
    assert len(steps) > 1
    newest = run / "checkpoints" / str(steps[-1])
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    flip(largest)
    with pytest.raises(InputError, match=rf"newest checkpoint.*damaged.*from step {steps[-2]} "):
        export(run, tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()


def test_damage_explains_what_it_breaks_and_an_order_to_stop_is_not_kept_waiting(model):
    flip(model / WEIGHTS, -5)
    with pytest.raises(InputError, match="SHA-256"), verified(model):
        raise KeyError("what damage led to")
    with pytest.raises(StoppedError), verified(model):
        raise StoppedError("now")


def test_each_process_compares_its_part(tmp_path):
    rng = np.random.default_rng(0)
    params = {
        path: rng.standard_normal(shape).astype(np.float32)
        for path, shape in names.tensor_shapes(CONFIG).items()
    }
    hf.write_model(tmp_path / "m", CONFIG, unflatten(params), max_shard_bytes=4000)
    shard = sorted((tmp_path / "m").glob("*.safetensors"))[1]
    flip(shard, -5)
    with verified(tmp_path / "m", 0, 2):
        pass
    with pytest.raises(InputError, match=shard.name), verified(tmp_path / "m", 1, 2):
        pass


def test_a_checksum_is_remembered_only_of_a_file_that_has_settled(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("one")
    first = file_sha256(path)
    path.write_text("two")  # within the grain of the clock that stamps files
    assert file_sha256(path) != first
    monkeypatch.setattr(checksums, "_SETTLED", -1.0)
    settled = file_sha256(path)
    monkeypatch.setattr(checksums, "_digest", lambda *_: pytest.fail("read again"))
    assert file_sha256(path) == settled


def test_a_checksum_that_is_not_wanted_any_more_ends(tmp_path):
    (tmp_path / "f").write_bytes(bytes(10))
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(checksums.CancelledError):
        file_sha256(tmp_path / "f", cancelled)


def test_verify_says_nothing_of_a_foreign_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    verify(tmp_path)
    assert read_record(tmp_path) is None

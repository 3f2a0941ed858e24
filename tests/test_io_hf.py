"""Hugging Face folders: what goes out comes back bit for bit, and bad input is named."""

import dataclasses
import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_model
from safetensors.numpy import load_file, save_file

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import hf, names, shards
from hen_jax.io.cards import Card
from hen_jax.models.config import DecoderConfig, Execution, RopeScaling
from hen_jax.models.decoder import abstract
from hen_jax.models.families import table
from hen_jax.models.quantised import quantised_base
from hen_jax.training.placement import parameter_shardings

CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    layers=3,
    rope_theta=5e5,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 32),
    tied_head=False,
)
TIED = dataclasses.replace(CONFIG, tied_head=True, rope_scaling=None)


def random_params(config: DecoderConfig, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = names.tensor_shapes(config)
    return unflatten({p: rng.standard_normal(s).astype(dtype) for p, s in shapes.items()})


def assert_same(left, right):
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path in left:
        assert left[path].dtype == right[path].dtype, path
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


@pytest.fixture
def ours(tmp_path):
    hf.write_model(tmp_path / "model", CONFIG, random_params(CONFIG))
    return tmp_path / "model"


@pytest.fixture
def folder(ours):
    """As another tool leaves it: without our record, so that a test may change its files."""
    (ours / "hen_jax.json").unlink()
    return ours


def edit_config(folder: Path, **changes):
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in fields.items() if value != "drop"}))


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_what_is_written_reads_back_bit_for_bit(tmp_path, config, dtype):
    params = random_params(config, dtype)
    hf.write_model(tmp_path / "m", config, params)
    assert hf.read_config(tmp_path / "m") == config
    assert_same(hf.read_params(tmp_path / "m", config), params)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    assert ("lm_head.weight" in tensors) != config.tied_head
    np.testing.assert_array_equal(
        tensors["model.layers.2.self_attn.k_proj.weight"],
        params["blocks"]["attn"]["k"]["kernel"][2].T,
    )


def test_import_then_export_writes_the_same_tensors(folder, tmp_path):
    read = hf.read_params(folder, CONFIG)
    hf.write_model(tmp_path / "again", CONFIG, read, source_folder=folder)
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_shards_with_index_read_back(tmp_path):
    params = random_params(CONFIG)
    hf.write_model(tmp_path / "m", CONFIG, params, max_shard_bytes=8000)
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert max(sum(t.nbytes for t in load_file(f).values()) for f in files) <= 8000
    index = json.loads((tmp_path / "m" / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in flatten(params).values())
    assert_same(hf.read_params(tmp_path / "m", CONFIG), params)


def test_rounding_is_to_nearest_even_and_named_in_the_config(folder, tmp_path):
    rounded = hf.read_params(folder, CONFIG, dtype="bfloat16")
    expected = random_params(CONFIG)["norm"]["scale"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(rounded["norm"]["scale"], expected)
    hf.write_model(tmp_path / "half", CONFIG, random_params(CONFIG), dtype="bfloat16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert_same(hf.read_params(tmp_path / "half", CONFIG), rounded)


def test_leaves_arrive_on_their_shardings_bit_for_bit(folder):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    shardings = parameter_shardings(abstract(CONFIG), mesh)
    placed = hf.read_params(folder, CONFIG, shardings=shardings)
    for path, leaf in flatten(placed).items():
        assert leaf.sharding == shardings[path]
    assert_same(jax.tree.map(np.asarray, placed), random_params(CONFIG))
    rounded = hf.read_params(folder, CONFIG, "bfloat16", shardings)
    assert_same(jax.tree.map(np.asarray, rounded), hf.read_params(folder, CONFIG, "bfloat16"))


def test_int8_is_rounded_on_the_way(folder):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    model = abstract(CONFIG, execution=Execution(base_dtype="int8"))
    shardings = parameter_shardings(model, mesh)
    placed = hf.read_params(folder, CONFIG, None, shardings, int8=True)
    for path, leaf in flatten(placed).items():
        assert leaf.sharding == shardings[path]
    expected = jax.jit(quantised_base)(random_params(CONFIG))
    assert_same(*(jax.tree.map(np.asarray, tree) for tree in (placed, expected)))


def test_tokenizer_files_card_and_ids_travel_along(tmp_path, folder):
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    edit_config(folder, eos_token_id=7, bos_token_id=1)
    card = Card("Kind", "Trained on 3 lines.", {"license": "cc0-1.0", "datasets": ["a: b"]})
    out = tmp_path / "out"
    hf.write_model(out, CONFIG, random_params(CONFIG), source_folder=folder, card=card)
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": [7, 9]}
    config = json.loads((out / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (7, 1)
    front = (out / "README.md").read_text().split("---")[1]
    assert 'datasets: ["a: b"]' in front
    assert 'library_name: "transformers"' in front
    assert json.loads((out / "hen_jax.json").read_text())["config"]["width"] == 16


@pytest.mark.parametrize(
    ("tokenizer", "beyond"),
    [
        ({"model": {"vocab": {"a": 0, "b": 60}}}, None),
        ({"model": {"vocab": {"a": 0, "b": 61}}}, 61),
        ({"model": {"vocab": [["a", 0.0]] * 62}}, 61),
        ({"added_tokens": [{"id": 70, "special": False, "content": "<x>"}]}, 70),
        ({"added_tokens": [{"id": 70, "special": True, "content": "<|user|>"}]}, 70),
        ({"added_tokens": [{"id": 70, "special": True, "content": "<image>"}]}, None),
    ],
)
def test_a_token_without_a_vector_is_refused(folder, tokenizer, beyond):
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text("<|user|>{{ messages }}")
    if beyond is None:
        assert hf.read_params(folder, CONFIG)
    else:
        with pytest.raises(InputError, match=f"ids up to {beyond}, but .* vocab_size 61"):
            hf.read_params(folder, CONFIG)


def test_a_reward_model_needs_a_padding_token(tmp_path):
    config = dataclasses.replace(CONFIG, score_head=True)
    with pytest.raises(InputError, match="pad_token_id"):
        hf.write_model(tmp_path / "m", config, random_params(config))


def test_a_foreign_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not written by hen_jax"):
        hf.write_model(tmp_path / "mine", CONFIG, random_params(CONFIG))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_failing_write_leaves_the_old_folder(ours):
    folder = ours

    def full(out):
        raise OSError(28, "No space left on device")

    tensors = hf.read_tensors(folder, CONFIG)
    tensors[3] = tensors[3]._replace(fill=full)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(OSError, match="No space"):
        hf.write_model(folder, CONFIG, tensors)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mystery": 3}, "'mystery'.*not known"),
        ({"attention_bias": True}, "'attention_bias' is True"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"pretraining_tp": 2}, "'pretraining_tp' is 2"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "bert"}, "'bert'; supported families: llama"),
        ({"hidden_size": "drop"}, "'hidden_size' is missing"),
        ({"hidden_size": -1}, "'hidden_size' is -1"),
        ({"num_key_value_heads": 3}, "multiple of 'num_key_value_heads'"),
        ({"rope_theta": 1e4}, "disagree"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope type 'yarn'"),
        ({"rope_parameters": {"rope_type": "default", "spin": 1}}, "spin"),
    ],
)
def test_config_refusals_name_the_file_and_the_key(folder, change, message):
    edit_config(folder, **change)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        hf.read_config(folder)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 2e4, "rope_scaling": None},
        {"rope_theta": 2e4, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_theta": 2e4, "rope_type": "default"}},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 2e4},
    ],
)
def test_every_rope_spelling_means_the_same(spelling):
    fields = table.to_hf(TIED)
    for key in ("rope_theta", "rope_scaling", "rope_parameters"):
        del fields[key]
    assert table.from_hf(fields | spelling).rope_theta == 2e4


def test_a_config_its_family_cannot_express_is_refused():
    odd = dataclasses.replace(TIED, kv_heads=0)
    with pytest.raises(InputError, match="num_key_value_heads"):
        table.to_hf(odd)


def rewrite(folder: Path, change):
    path = folder / "model.safetensors"
    tensors = dict(load_file(path))
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"is missing weights: model\.norm\.weight"),
        (lambda t: t.update(extra=np.zeros(1)), "has leftover weights: extra"),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(5, np.float32)}),
            r"model\.norm\.weight has shape \[5\].*\[16\]",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(16, np.int8)}),
            "stored as I8.*unquantised",
        ),
    ],
    ids=["missing", "leftover", "shape", "dtype"],
)
def test_weight_refusals_name_the_weight(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(InputError, match=message):
        hf.read_params(folder, CONFIG)


def test_layers_of_different_dtypes_are_not_rounded_unasked(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, lambda t: t.update({name: t[name].astype(np.float16)}))
    with pytest.raises(
        InputError, match=r"layers\.0\.mlp.* as float32 and .*layers\.1.* as float16"
    ):
        hf.read_params(folder, CONFIG)
    wide = hf.read_params(folder, CONFIG, dtype="float32")
    assert wide["blocks"]["mlp"]["up"]["kernel"].dtype == np.float32


def test_a_tied_model_may_store_its_head_only_if_it_is_the_embedding(tmp_path):
    folder = tmp_path / "m"
    params = random_params(TIED)
    hf.write_model(folder, TIED, params)
    (folder / "hen_jax.json").unlink()
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert_same(hf.read_params(folder, TIED), params)
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}))
    with pytest.raises(InputError, match="differs from the embedding"):
        hf.read_params(folder, TIED)


def test_a_tied_model_may_store_its_one_matrix_as_the_head(tmp_path):
    folder = tmp_path / "m"
    params = random_params(TIED)
    hf.write_model(folder, TIED, params)
    (folder / "hen_jax.json").unlink()
    rewrite(folder, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    assert_same(hf.read_params(folder, TIED), params)


@pytest.mark.parametrize("key", ["unsloth_fixed", "unsloth_version", "max_sequence_length"])
def test_keys_of_other_tools_that_change_nothing_are_no_reason_to_refuse(folder, key):
    fields = json.loads((folder / "config.json").read_text()) | {key: 2048}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "hen_jax.json").unlink(missing_ok=True)
    assert hf.read_config(folder) == CONFIG


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"model\.safetensors is not a whole safetensors file"):
        hf.read_params(folder, CONFIG)


def test_pickle_weights_are_refused_unread(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not even opened")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle file.*safetensors"):
        hf.read_params(folder, CONFIG)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../secret.safetensors", "points outside its folder"),
        ("/etc/passwd", "points outside its folder"),
        ("sub/model.safetensors", "points outside its folder"),
        ("model-00009-of-00009.safetensors", "which is missing"),
    ],
)
def test_an_index_may_only_name_shards_beside_it(folder, file, message):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    save_file({"model.norm.weight": np.zeros(16)}, folder.parent / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": file}}
    (folder / shards.INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        hf.read_params(folder, CONFIG)


def test_writing_refuses_leaves_that_do_not_fit(tmp_path):
    params = random_params(CONFIG)
    short = params | {"norm": {"scale": np.zeros(3, np.float32)}}
    with pytest.raises(InputError, match="norm/scale has shape"):
        hf.write_model(tmp_path / "m", CONFIG, short)
    with pytest.raises(InputError, match="missing weights: norm/scale"):
        hf.write_model(tmp_path / "m", CONFIG, {k: v for k, v in params.items() if k != "norm"})
    with pytest.raises(InputError, match="leftover weights: head/kernel"):
        hf.write_model(tmp_path / "m", TIED, params)
    assert not (tmp_path / "m").exists()

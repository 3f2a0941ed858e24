"""An export speaks as its run does, or is not there: read back, compared, and on the same base."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.records import read_record, write_record
from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import hf, peft, shards
from hen_jax.runs.export import trained as opening
from hen_jax.runs.export.folders import export, export_trained
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.import_model import import_model


@pytest.fixture(scope="module")
def trained(tiny_finished):
    return open_trained(tiny_finished)


def spoiled(tree, value: float):
    """The tree with one of its numbers replaced."""
    leaves = {path: np.array(leaf) for path, leaf in flatten(tree).items()}
    leaf = leaves[max(leaves)]
    leaf.reshape(-1)[-1] = value
    return unflatten(leaves)


@pytest.mark.parametrize(("form", "value"), [("hf", np.nan), ("peft", -np.inf)])
def test_what_reads_back_as_no_number_is_no_export(trained, tmp_path, monkeypatch, form, value):
    if form == "hf":
        monkeypatch.setattr(hf, "read_params", lambda *_: spoiled(trained.model.base, value))
    else:
        read = peft.read_adapter
        monkeypatch.setattr(
            peft,
            "read_adapter",
            lambda *args: (trained.lora, spoiled(read(*args)[1], value)),
        )
    with pytest.raises(RuntimeError, match="gives other logits than the run"):
        export_trained(trained, tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


def test_the_distance_to_what_is_no_number_is_infinite():
    zeros = jnp.zeros((1, 1, 3))
    for value in (np.nan, np.inf, -np.inf):
        assert opening._distance(zeros.at[0, 0, 1].set(value), zeros) == np.inf
        assert opening._distance(zeros, zeros.at[0, 0, 1].set(value)) == np.inf
        both = zeros.at[0, 0, 1].set(value)
        assert opening._distance(both, both) == np.inf
    assert opening._distance(zeros + 1, zeros) == 1


def test_another_export_is_kept_when_the_new_one_is_wrong(trained, tmp_path, monkeypatch):
    out = tmp_path / "out"
    peft.write_adapter(out, trained.model.config, trained.lora, trained.params, base_model="org/b")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    wrong = trained.lora, jax.tree.map(lambda leaf: leaf + 1, trained.params)
    monkeypatch.setattr(peft, "read_adapter", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="was not written"):
        export_trained(trained, out, "peft")
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_run_that_went_astray_is_not_exported(trained, tmp_path):
    for form in ("hf", "peft"):
        astray = trained._replace(params=spoiled(trained.params, np.nan))
        with pytest.raises(InputError, match=r"holds numbers in blocks/.* that are not finite"):
            export_trained(astray, tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["weights", "config"])
def test_a_base_that_changed_since_is_refused(tiny_base, tiny_finished, tmp_path, change):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    run = shutil.copytree(tiny_finished, tmp_path / "run")
    record = read_record(run)
    assert record is not None
    record["base"]["folder"] = str(base)
    write_record(run, record.pop("kind"), record, files=False)
    (base / "hen_jax.json").unlink()  # no checksums of its own: the run remembers
    open_trained(run)
    if change == "weights":
        content = bytearray((base / "model.safetensors").read_bytes())
        content[-5] ^= 1
        (base / "model.safetensors").write_bytes(content)
    else:
        text = (base / "config.json").read_text()
        assert "1e-05" in text
        (base / "config.json").write_text(text.replace("1e-05", "1e-04"))
    said = {"weights": "its weights are others", "config": "its norm_eps was 1e-05, is 0.0001"}
    with pytest.raises(InputError, match=rf"base model in .* trained on \({said[change]}\)"):
        export(run, tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_named_and_not_written(tmp_path, dtype, value):
    array = np.ones((40, 1000), shards.DTYPES[dtype])
    shards.require_finite(array * np.array(-1e4).astype(array.dtype), "fine")
    array[39, 998] = value
    with pytest.raises(InputError, match=r"layer\.3 holds -?(nan|inf) at \[39, 998\]"):
        shards.require_finite(array, "layer.3")


def test_an_import_of_a_model_with_nan_names_the_tensor(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "hen_jax.json").unlink()
    config = hf.read_config(base)
    (last,) = [one for one in hf.read_tensors(base, config) if one.name == "model.norm.weight"]
    entry = shards.locate_tensors(base)[last.name]
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(entry.offset)
        file.write(np.array([np.nan], last.dtype).tobytes())
    with pytest.raises(InputError, match=r"model\.norm\.weight holds nan at \[0\]"):
        import_model(str(base), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_large_logits_are_allowed_the_rounding_of_their_size():
    """SmolLM2 after SFT at a high rate has logits of 34, and merged ones lie 1.8e-3 from them."""
    small, large = jnp.full((1, 2, 3), 9.0), jnp.full((1, 2, 3), -34.0)
    assert opening.tolerance("float32", small) == pytest.approx(1e-3)
    assert opening.tolerance("float32", large) == pytest.approx(3.4e-3)
    assert opening.tolerance("bfloat16", large) == pytest.approx(1.7)

"""A rating model from its config to its export: fed, sharded, reported, read back."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import config, open_job, read, run

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.io.peft_settings import adapter_labels
from hen_jax.planning.topologies import Topology
from hen_jax.runs.abstract import program
from hen_jax.runs.earlier import previous_run
from hen_jax.runs.export.folders import export
from hen_jax.runs.export.trained import open_trained
from hen_jax.training.metrics import read_metrics
from hen_jax.verbs.plan import plan

SHIPPED = "shipped:sense7/conversations.jsonl"
SENSE7 = {"schema": "sense7", "path": SHIPPED}
FIELDS = {
    "recipe": "regression",
    "sources": (SENSE7,),
    "level": "turn",
    "predicts": "dimensions",
    "folds": {"count": 8, "held": 0},
    "data": {"row_length": 256, "batch_size": 8},
    "epochs": 2.0,
    "loop": {"evaluators": ()},
}


@pytest.fixture(scope="module", autouse=True)
def short(tmp_path_factory):
    """The shipped conversations cut short, so that runs of them take a second."""
    path = tmp_path_factory.mktemp("short") / "conversations.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for line in samples.path("sense7/conversations.jsonl").read_text().splitlines():
            row = json.loads(line)
            said = [one | {"Content": one["Content"][:24]} for one in row["messages"][:4]]
            file.write(json.dumps(row | {"messages": said}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hen_jax.runs.rated.locate_source", lambda name: path if name == SHIPPED else Path(name)
        )
        yield path


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory) -> Path:
    """A LoRA run of one output for each dimension, with its report."""
    workdir = tmp_path_factory.mktemp("regression") / "run"
    run(tiny_base, workdir, **FIELDS | {"loop": {"evaluators": ("ratings",)}})
    return workdir


@pytest.fixture(scope="module")
def exports(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {form: export(finished, folder / form, form) for form in ("hf", "peft")}


def losses(workdir: Path) -> list[float]:
    return [one["loss"] for one in read_metrics(workdir) if one["kind"] in ("train", "eval")]


@pytest.mark.slow
def test_sharded_and_in_microbatches_it_learns_the_same_and_compiles_once(
    finished, tmp_path, caplog
):
    base = previous_run(finished).base
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        run(base, tmp_path / "sharded", **FIELDS, mesh=mesh, microbatches=2)
    said = [record.getMessage() for record in caplog.records]
    for name in ("step", "score"):
        assert sum(f"XLA compilation of jit({name})" in one for one in said) == 1
    assert len(losses(finished)) > 3
    np.testing.assert_allclose(losses(tmp_path / "sharded"), losses(finished), rtol=2e-4)


def test_the_report_has_controls_and_dimensions(finished):
    found = json.loads((finished / "regression.json").read_text())
    assert set(found["controls"]) == {"constant", "length", "bag_of_words"}
    assert found["model"]["mse"]["low"] <= found["model"]["mse"]["value"]
    assert found["conversations"] == found["dimensions"]["Affective"]["conversations"] > 3
    assert set(found["dimensions"]) == set(DIMENSIONS)
    ratio = found["model"]["mse"]["value"] / found["controls"]["constant"]["mse"]
    assert found["model"]["mse_ratio"]["value"] == pytest.approx(ratio, rel=0.02)
    assert (finished / "regression.png").stat().st_size > 1000
    rows = [json.loads(line) for line in (finished / "held_out.jsonl").read_text().splitlines()]
    error = np.mean([(row["rating"] - row["predicted"]) ** 2 for row in rows])
    assert error == pytest.approx(found["model"]["mse"]["value"], abs=1e-4)


def test_the_export_rates_as_the_run_does_and_says_what(finished, exports):
    for one in exports.values():
        assert one.what == "scores"
        assert one.difference < 1e-4
        record = json.loads((one.folder / "hen_jax.json").read_text())
        assert record["regression"] == json.loads((finished / "regression.json").read_text())
        assert "squared error of ratings" in (one.folder / "README.md").read_text()
    assert open_trained(finished).params["score"]["kernel"].shape[1] == 7
    named = json.loads((exports["hf"].folder / "config.json").read_text())["id2label"]
    assert tuple(named.values()) == adapter_labels(exports["peft"].folder) == tuple(DIMENSIONS)
    assert "num_labels=7" in (exports["peft"].folder / "README.md").read_text()


def test_scores_are_ratings_by_folder_and_by_adapter(
    finished, exports, short, tmp_path, monkeypatch
):
    lines = short.read_text().splitlines(keepends=True)
    (tmp_path / "six.jsonl").write_text("".join(lines[:6]))
    data = [f"--input={tmp_path / 'six.jsonl'}", "--schema=sense7"]
    base = previous_run(finished).base
    models = {
        "a": [f"--model={exports['hf'].folder}"],
        "b": [f"--model={base}", f"--adapter={exports['peft'].folder}"],
    }
    found = []
    for name, model in models.items():
        out = tmp_path / f"{name}.jsonl"
        assert cli.main(["score", f"--out={out}", *model, *data]) == 0
        found.append([json.loads(line) for line in out.read_text().splitlines()])
    for one, other in zip(*found, strict=True):
        assert set(one["dimensions"]) == set(DIMENSIONS)
        assert 0 < min(one["dimensions"].values()) <= one["score"] < 1
        assert one["score"] == pytest.approx(np.mean([*one["dimensions"].values()]), abs=1e-5)
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_a_head_of_other_outputs_begins_anew(tiny_base, finished, tmp_path):
    fields = FIELDS | {"predicts": "overall", "level": "conversation", "reads": "replies"}
    job = open_job(tiny_base, tmp_path / "run", **fields, start=str(finished))
    assert job.trainable["score"]["kernel"].shape[1] == 1
    b = job.trainable["blocks"]["attn"]["q"]["lora_b"]
    assert float(abs(b).max()) > 0  # the adapter goes on


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, r"config\.sources is empty"),
        ({"sources": ({"schema": "hed", "path": "x"},)}, "'hed' holds no ratings; allowed: rating"),
        ({"sources": (SENSE7 | {"weight": 1.0},)}, "has a weight"),
        ({"data": {"row_length": 16, "batch_size": 8}}, r"conversations are all longer"),
        ({"folds": {"count": 5, "held": 5}}, r"config\.folds.*hold out one of them"),
        ({"loop": {"evaluators": ("replies",)}}, "names 'replies'; allowed: ratings"),
        ({"folds": {"count": 10000, "held": 3}}, "fold 3 of 10000 of 28 groups"),
    ],
)
def test_bad_input_is_one_line(tiny_base, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tiny_base, tmp_path / "run", **FIELDS | changes)


def test_ratings_off_the_scale_are_named_and_dimensions_need_some(tiny_base, tmp_path):
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows = [{"id": f"r{at}", "group": f"g{at}", "messages": said, "rating": 4} for at in range(40)]

    def attempt(rows) -> None:
        path = tmp_path / "rated.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"schema": "rating", "path": str(path)}
        open_job(tiny_base, tmp_path / "run", **FIELDS | {"sources": (source,)})

    with pytest.raises(InputError, match=r"none of its .* conversations is rated by dimension"):
        attempt(rows)
    with pytest.raises(
        InputError, match=r"rated\.jsonl:3:rating: 6; allowed: a number from 1 to 5"
    ):
        attempt([*rows[:2], rows[2] | {"rating": 6}])


def test_a_plan_has_the_step_of_a_run(tiny_base):
    """Traced and not compiled: that is the slow test's."""
    stage, parsed = read(config(tiny_base, **FIELDS))
    made = program(stage, parsed, Topology("here", "v5e", "2x4", 1, tuple(jax.devices())))
    _, metrics = jax.eval_shape(made.step, *made.arguments)
    assert {"loss", "mae", "rating"} <= set(metrics)
    assert made.tokens == 8 * 256
    assert made.model_flops > 0


@pytest.mark.slow
def test_the_stage_is_planned(tiny_base, monkeypatch):
    pytest.importorskip("libtpu", reason="hen plan compiles for TPUs: pip install 'hen_jax[plan]'")
    monkeypatch.setattr("hen_jax.verbs.plan.load_config", lambda *_: config(tiny_base, **FIELDS))
    (found,) = plan("a file", [], "v5e:1x1")
    assert found.fits
    assert found.tokens == 8 * 256

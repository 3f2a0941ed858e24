"""A preference run from its config to its report: sharded, resumed, started, refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import config, open_job, read, run

from hen_jax.core.errors import InputError
from hen_jax.recipes import preference
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.preferred import read_preferences, require_pairs
from hen_jax.runs.stage import rows_to_devices
from hen_jax.steps.preference import BASE, REFERENCE
from hen_jax.training.metrics import read_metrics
from hen_jax.verbs.plan import plan

CROSSED = {"schema": "crossed", "path": "shipped:crossed/level.en.jsonl"}
FIELDS = {
    "recipe": "preference",
    "sources": (CROSSED,),
    "data": {"row_length": 352, "batch_size": 8},
    "preference": {"loss": "kto"},
    "epochs": 0.2,
    "loop": {"checkpoint_every": 2, "evaluators": ()},
}
SHORT = FIELDS | {"preference": {"loss": "dpo"}, "epochs": 0.1}


@pytest.fixture(scope="module")
def finished(tiny_base, tiny_finished, tmp_path_factory) -> Path:
    """A LoRA KTO run with its report, from an SFT run: the base alone is not its reference."""
    workdir = tmp_path_factory.mktemp("preference") / "run"
    looks = FIELDS | {"loop": {"evaluators": ("preferences",)}}
    run(tiny_base, workdir, **looks, start=str(tiny_finished))
    return workdir


def told(workdir: Path, name: str) -> list[float]:
    return [one[name] for one in read_metrics(workdir) if one["kind"] in ("train", "eval")]


@pytest.mark.slow
def test_sharded_over_eight_devices_and_in_microbatches_it_learns_the_same(
    tiny_base, tiny_finished, finished, tmp_path
):
    more = {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}, "microbatches": 2}
    run(tiny_base, tmp_path / "sharded", **FIELDS, **more, start=str(tiny_finished))
    for name in ("loss", "z0", "reward/wanted", "log_prob/unwanted"):
        found, expected = told(tmp_path / "sharded", name), told(finished, name)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5, err_msg=name)
    assert max(told(finished, "z0")) > 0


@pytest.mark.slow
def test_what_is_cut_off_goes_on_bit_for_bit(
    tiny_base, tiny_finished, finished, tmp_path, monkeypatch
):
    fields = FIELDS | {"start": str(tiny_finished)}

    def cut(job):
        put, left = rows_to_devices(job), iter(range(100))

        def prepare(state, frozen, batch):
            if next(left) == 5:  # held-out batches come first
                raise RuntimeError("the machine is gone")
            return put(state, frozen, batch)

        return prepare

    with monkeypatch.context() as patch:
        patch.setattr(preference, "STAGE", preference.STAGE._replace(prepare=cut))
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", **fields)
    done = [one for one in read_metrics(tmp_path / "cut") if one["kind"] == "train"]
    resumed = run(tiny_base, tmp_path / "cut", **fields)
    assert 0 < len(done) < int(resumed.step)
    assert told(tmp_path / "cut", "loss") == told(finished, "loss")
    whole = open_trained(finished).params
    jax.tree.map(np.testing.assert_array_equal, whole, jax.device_get(resumed.params))


def test_the_report_is_of_the_implicit_reward_beside_its_controls(finished):
    found = json.loads((finished / "preferences.json").read_text())
    level = found["accuracy"]["crossed/level"]
    assert level["bag_of_words"] == level["length"] == 0.5
    assert 0 < level["model"]["value"] < 1
    assert found["temperature"] > 0
    (first, last) = [one for one in read_metrics(finished) if one["kind"] == "preferences"]
    assert first["accuracy/crossed"] == 0.5  # the policy is its reference
    assert last["accuracy/crossed"] == level["model"]["value"]


STORED = SHORT | {"preference": {"loss": "dpo", "reference": "precomputed"}}


@pytest.fixture(scope="module")
def stored(tiny_base, tiny_finished, tmp_path_factory) -> Path:
    """A DPO run whose reference's log-probabilities were computed once."""
    workdir = tmp_path_factory.mktemp("stored") / "run"
    run(tiny_base, workdir, **STORED, start=str(tiny_finished))
    return workdir


def test_a_run_starts_as_its_reference(stored, finished):
    """From an SFT run: the base alone would start elsewhere."""
    assert told(stored, "loss")[0] == pytest.approx(np.log(2), abs=1e-6)
    assert told(finished, "loss")[0] == 0.5
    assert told(stored, "loss")[-1] != told(stored, "loss")[0]


@pytest.mark.slow
def test_a_reference_that_is_kept_is_the_stored_one(tiny_base, tiny_finished, stored, tmp_path):
    run(tiny_base, tmp_path / "kept", **SHORT, start=str(tiny_finished))
    np.testing.assert_allclose(told(tmp_path / "kept", "loss"), told(stored, "loss"), rtol=1e-5)


def test_log_probabilities_of_another_reference_are_refused(tiny_base, tiny_finished, stored):
    table, identity = stored / "reference.npz", stored / "reference.json"
    with np.load(table) as found:
        np.savez(table, key=np.asarray("another"), log_probs=found["log_probs"])
    with pytest.raises(InputError, match=r"reference\.npz: computed with another reference"):
        run(tiny_base, stored, **STORED, start=str(tiny_finished))
    before = json.loads(identity.read_text())
    identity.write_text(json.dumps(before | {"start": {"step": 1, "manifest_sha256": "0"}}))
    with pytest.raises(InputError, match="is not what this run began with"):
        run(tiny_base, stored, **STORED, start=str(tiny_finished))


def test_a_policy_that_is_not_its_reference_does_not_start(
    tiny_base, tiny_finished, tmp_path, monkeypatch
):
    def base_alone(settings, params, frozen):
        return {BASE: frozen, REFERENCE: jax.tree.map(np.zeros_like, params)}

    monkeypatch.setattr(preference, "STAGE", preference.STAGE._replace(kept=base_alone))
    with pytest.raises(
        InputError, match=r"before the first update dpo is 0\.\d+ .* it is 0\.693147"
    ):
        run(tiny_base, tmp_path / "run", **SHORT, start=str(tiny_finished))


def test_labels_train_kto_and_nothing_else(tiny_base, tmp_path):
    path = tmp_path / "labels.jsonl"
    lines = [
        {
            "id": str(n),
            "prompt": f"Question {n}?",
            "completion": f"Answer {n}.",
            "label": n % 2 == 0,
        }
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words, fields = (
        known_tokenizer(tiny_base),
        FIELDS | {"sources": ({"schema": "label", "path": str(path)},)},
    )
    found = read_preferences(read(config(tiny_base, **fields))[1], words)
    marks = np.sum([row.marks.sum(axis=0) for row in found.rows()], axis=0)
    assert marks.min() > 10
    with pytest.raises(InputError, match="'preferences' needs held-out pairs"):
        require_pairs(found)
    with pytest.raises(InputError, match="'label' holds no preference pairs"):
        read_preferences(
            read(config(tiny_base, **fields | {"preference": {"loss": "dpo"}}))[1], words
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"row_length": 352, "batch_size": 1}}, r"config\.data\.batch_size is 1; kto"),
        ({"data": {"row_length": 32, "batch_size": 8}}, "longer than config.data.row_length 32"),
        ({"preference": {"loss": "simpo", "tail": 0.5}}, r"tail is 0\.5, which 'simpo' does not"),
    ],
)
def test_what_cannot_run_is_refused(tiny_base, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tiny_base, tmp_path / "run", **FIELDS | changes)


def test_b_random_starts_as_the_base_and_goes_on_from_any_adapter(
    tiny_base, tiny_finished, tmp_path
):
    lora = {"rank": 2, "alpha": 4.0, "init": "b_random"}
    job = open_job(tiny_base, tmp_path / "fresh", **SHORT, adapter=lora)
    q = job.trainable["blocks"]["attn"]["q"]
    assert float(abs(q["lora_a"]).max()) == 0
    assert float(q["lora_b"].std()) == pytest.approx(2**-0.5, rel=0.1)
    job = open_job(tiny_base, tmp_path / "on", **SHORT, adapter=lora, start=str(tiny_finished))
    assert float(abs(job.trainable["blocks"]["attn"]["q"]["lora_a"]).max()) > 0


@pytest.mark.slow
def test_the_stage_is_planned_with_both_forward_passes(tiny_base, monkeypatch):
    pytest.importorskip("libtpu", reason="hen plan compiles for TPUs: pip install 'hen_jax[plan]'")
    monkeypatch.setattr("hen_jax.verbs.plan.load_config", lambda *_: config(tiny_base, **FIELDS))
    (found,) = plan("a file", [], "v5e:1x1")
    assert found.fits
    assert found.tokens == 2 * 8 * 352  # rows, and the same prompts with other replies

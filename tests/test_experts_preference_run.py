"""Runs of experts on preferences: begun as their reference, resumed, extended, planned."""

import jax
import numpy as np
import pytest
from tiny_run import config, run

from hen_jax.core.trees import flatten
from hen_jax.recipes import experts_preference
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.stage import rows_to_devices
from hen_jax.training.metrics import read_metrics
from hen_jax.verbs.plan import plan

LEVEL, ROLE = (
    ({"schema": "crossed", "path": f"shipped:crossed/{kind}.en.jsonl"},)
    for kind in ("level", "role")
)
FIELDS = {
    "recipe": "experts_preference",
    "sources": (),
    "experts": ({"name": "level", "sources": LEVEL}, {"name": "role", "sources": ROLE, "rank": 1}),
    "data": {"row_length": 352, "batch_size": 4},
    "epochs": 0.1,
    "loop": {"checkpoint_every": 2},
}


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory):
    """DPO of two experts from the base."""
    workdir = tmp_path_factory.mktemp("experts") / "run"
    run(tiny_base, workdir, **FIELDS)
    return workdir


# These compile whole runs: half a minute each where nothing is in the cache of programs.


@pytest.mark.slow
def test_a_run_starts_at_ln_2_and_learns(finished):
    first = next(one for one in read_metrics(finished) if one["kind"] == "train")
    for name in ("level", "role"):
        assert first[f"dpo_{name}"] == pytest.approx(np.log(2), abs=1e-6)
        learnt = flatten(open_trained(finished, name).params)
        assert max(float(abs(leaf).max()) for key, leaf in learnt.items() if "lora_a" in key) > 0


@pytest.mark.slow
def test_what_is_cut_off_goes_on_bit_for_bit(tiny_base, finished, tmp_path, monkeypatch):
    def cut(job):
        put, left = rows_to_devices(job), iter(range(100))
        held = sum(1 for _ in job.feed.held_out())

        def prepare(state, frozen, batch):
            if next(left) == held + 2:  # held-out batches come first
                raise RuntimeError("the machine is gone")
            return put(state, frozen, batch)

        return prepare

    with monkeypatch.context() as patch:
        stage = experts_preference.STAGE._replace(prepare=cut)
        patch.setattr(experts_preference, "STAGE", stage)
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", **FIELDS)
    done = [one for one in read_metrics(tmp_path / "cut") if one["kind"] == "train"]
    resumed = run(tiny_base, tmp_path / "cut", **FIELDS)
    assert 0 < len(done) < int(resumed.step)
    for name in ("level", "role"):
        whole = open_trained(finished, name).params
        jax.tree.map(np.testing.assert_array_equal, whole, jax.device_get(resumed.params[name]))


@pytest.mark.slow
def test_an_expert_added_to_a_finished_set_leaves_the_bytes_of_the_others(
    tiny_base, finished, tmp_path
):
    added = ({"name": "level"}, {"name": "role", "rank": 1}, {"name": "new", "sources": LEVEL})
    run(tiny_base, tmp_path / "more", **(FIELDS | {"experts": added}), start=str(finished))
    for name in ("level", "role"):
        before, after = (open_trained(one, name).params for one in (finished, tmp_path / "more"))
        jax.tree.map(np.testing.assert_array_equal, before, after)
    new = flatten(open_trained(tmp_path / "more", "new").params)
    assert max(float(abs(leaf).max()) for leaf in new.values()) > 0


@pytest.mark.slow
def test_a_plan_compiles_it(monkeypatch):
    kto = FIELDS | {"preference": {"loss": "kto", "sft": 0.1}, "model": {"source": "tiny"}}
    monkeypatch.setattr("hen_jax.verbs.plan.load_config", lambda *_: config("tiny", **kto))
    (found,) = plan("a file", [], "v5e:1x1")
    assert found.fits

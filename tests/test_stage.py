"""The seam: a stage that hen_jax does not know, a model held once, evaluators and trackers."""

import gc
import importlib.machinery
import math
import sys
import types

import distil_stage
import jax
import numpy as np
import pytest
from tiny_run import config, open_job, run

from hen_jax.core.errors import InputError
from hen_jax.recipes.table import STAGES
from hen_jax.runs import train
from hen_jax.runs.evaluators import EVALUATORS
from hen_jax.runs.export.folders import export
from hen_jax.runs.stage import rows_to_devices
from hen_jax.training.metrics import MetricLog, read_metrics
from hen_jax.training.trackers import TRACKERS, Tracker, require_trackers
from hen_jax.verbs.plan import plan


@pytest.fixture
def distil(monkeypatch):
    monkeypatch.setitem(STAGES, "distil", "distil_stage")
    return {"recipe": "distil", "epochs": 0.15, "adapter": None}


def test_a_stage_that_is_not_ours_trains_resumes_bit_for_bit_and_is_exported(
    tiny_base, tmp_path, distil, monkeypatch
):
    whole = run(tiny_base, tmp_path / "whole", **distil)
    lines = read_metrics(tmp_path / "whole")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert float(whole.params["sharpness"]) != 0.0
    assert 0.0 < float(whole.memory) < lines[0]["loss"]

    def cut(job):
        put, left = rows_to_devices(job), iter(range(int(whole.step) + 2))

        def prepare(state, frozen, batch):
            if next(left) == 6:  # held-out batches come first
                raise RuntimeError("the machine is gone")
            return put(state, frozen, batch)

        return prepare

    with monkeypatch.context() as patch:
        patch.setattr(distil_stage, "STAGE", distil_stage.STAGE._replace(prepare=cut))
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", loop={"checkpoint_every": 1}, **distil)
    done = [line for line in read_metrics(tmp_path / "cut") if line["kind"] == "train"]
    assert 0 < len(done) < int(whole.step)
    resumed = run(tiny_base, tmp_path / "cut", loop={"checkpoint_every": 1}, **distil)
    ends = [jax.device_get(state._replace(key=())) for state in (whole, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    exported = export(tmp_path / "cut", tmp_path / "out", "hf")
    assert exported.change > 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trained by distillation to a bias of 6.0 with hen_jax" in card


@pytest.mark.slow  # compiles for long
def test_a_stage_that_is_not_ours_is_planned(tiny_base, distil, monkeypatch, capsys):
    pytest.importorskip("libtpu", reason="hen plan compiles for TPUs: pip install 'hen_jax[plan]'")
    monkeypatch.setattr("hen_jax.verbs.plan.load_config", lambda *_: config(tiny_base, **distil))
    (found,) = plan("a file", [], "v5e:1x1")
    assert found.fits
    assert found.tokens == 8 * 256
    assert "distil on v5e:1x1" in capsys.readouterr().out


def test_a_model_that_trains_whole_is_held_once(tiny_base, tmp_path, monkeypatch):
    """Parameters and two moments of AdamW, and no base beside them."""
    gc.collect()
    base = open_job(tiny_base, tmp_path / "shape", adapter=None).model.base
    shape = base["embed"]["embedding"].shape
    del base
    gc.collect()

    def held() -> int:
        return sum(one.shape == shape for one in jax.live_arrays())

    before = held()
    monkeypatch.setitem(EVALUATORS, "held", lambda job: lambda state: {"arrays": held() - before})
    loop = {"evaluators": ("held",), "evaluate_every": 1, "checkpoint_every": 1}
    changes = {"adapter": None, "epochs": 0.05, "loop": loop}
    job = open_job(tiny_base, tmp_path / "run", **changes)
    train.fit(job)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(job.model.base))
    looked = [line["arrays"] for line in read_metrics(tmp_path / "run") if line["kind"] == "held"]
    assert len(looked) == job.feed.steps + 1
    assert set(looked) == {3}
    again = open_job(tiny_base, tmp_path / "run", **changes)
    train.fit(again)  # nothing is left to do: the state is restored, and the base is gone too
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(again.model.base))


@pytest.mark.slow  # compiles for long
def test_the_replies_of_a_run_are_an_evaluator(tiny_base, tmp_path):
    loop = {"evaluators": ("replies",)}
    run(tiny_base, tmp_path / "run", epochs=0.05, loop=loop)
    looked = [one for one in read_metrics(tmp_path / "run") if one["kind"] == "replies"]
    assert [set(one) for one in looked] == [{"step", "kind", "tokens", "stopped"}] * 2
    assert (tmp_path / "run" / "replies" / "0.json").exists()


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ({"trackers": ("tensorbord",)}, r"config\.loop\.trackers names 'tensorbord'; allowed: ten"),
        ({"trackers": ("trackio",)}, "'trackio', which is not installed; `pip install trackio`"),
        ({"evaluators": ("bleu",)}, r"config\.loop\.evaluators names 'bleu'; allowed: replies"),
    ],
)
def test_a_plug_in_that_is_not_there_is_named_before_anything_is_read(tmp_path, loop, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "no model", tmp_path / "run", loop=loop)
    assert not (tmp_path / "run").exists()


def test_a_hosted_tracker_is_told_everything_under_the_same_id(tmp_path, monkeypatch):
    calls = []
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = lambda **named: calls.append(("init", named["id"], named["resume"]))
    module.log = lambda values, step: calls.append((step, values))
    module.finish = lambda: calls.append(("finish",))
    monkeypatch.setitem(sys.modules, "wandb", module)
    require_trackers(("wandb",))
    for start in (0, 1):
        log = MetricLog(tmp_path, start, 2, trackers=("wandb",), quiet=True)
        log.evaluation(start, {"loss": 2.5})
        log.close()
    first, second = calls[:3], calls[3:]
    assert first[1:] == [(0, {"eval/loss": 2.5}), ("finish",)]
    assert second[0] == first[0] == ("init", first[0][1], "allow")
    assert not (tmp_path / "tensorboard").exists()


def test_mlflow_goes_on_with_the_run_that_it_named(tmp_path, monkeypatch):
    calls = []

    def start_run(run_id, run_name):
        calls.append(("start", run_id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "theirs"))

    module = types.ModuleType("mlflow")
    module.__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
    module.start_run = start_run
    module.log_metrics = lambda values, step: calls.append((step, values))
    module.end_run = lambda: calls.append(("end",))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    require_trackers(("mlflow",))
    for start in (0, 1):
        log = MetricLog(tmp_path, start, 2, trackers=("mlflow",), quiet=True)
        log.evaluation(start, {"loss": 2.5, "kl": math.nan})
        log.close()
    first, second = calls[:3], calls[3:]
    assert first[1:] == [(0, {"eval/loss": 2.5}), ("end",)]
    assert [first[0][1], second[0][1]] == [None, "theirs"]
    assert first[0][2] == second[0][2]


def test_a_tracker_is_an_entry_in_a_table(tmp_path, monkeypatch):
    told = []
    mine = Tracker(lambda step, values: told.append((step, values)), lambda: told.append("closed"))
    monkeypatch.setitem(TRACKERS, "mine", lambda folder, start: mine)
    log = MetricLog(tmp_path, 0, 2, trackers=("mine",), quiet=True)
    log.looked(1, "replies", {"tokens": 4.0})
    log.close()
    assert told == [(1, {"replies/tokens": 4.0}), "closed"]

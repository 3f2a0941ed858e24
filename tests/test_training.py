"""A run, from its config to its checkpoints: compiled once, never torn."""

import dataclasses
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import config, open_job, run

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.models.config import LongRope
from hen_jax.recipes.sft import SftSettings
from hen_jax.runs.packed import check_packing
from hen_jax.runs.settings import settings
from hen_jax.runs.tiny_model import CONFIG
from hen_jax.runs.train import fit
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.optimizers import OptimizerConfig, make_schedule


def test_one_compilation_serves_texts_of_any_length(tiny_base, tmp_path, caplog):
    lengths = [1, 5, 60]
    path = tmp_path / "mixed.jsonl"
    template = json.loads(samples.path("hed/hed.en.jsonl").read_text().splitlines()[0])
    rows = [
        template | {"id": f"r{i}", "statement_id": f"s{i}", "response": "well " * lengths[i % 3]}
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = ({"schema": "hed", "path": str(path)},)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        run(tiny_base, tmp_path / "run", sources=sources, epochs=1.0, loop={"eval_every": 1})
    finished = [record.getMessage() for record in caplog.records]
    for name in ("step", "score"):
        compiled = [line for line in finished if f"XLA compilation of jit({name})" in line]
        assert len(compiled) == 1, compiled


@pytest.mark.slow  # compiles for long
def test_a_failing_write_leaves_the_older_checkpoint_usable(
    tiny_base, tiny_finished, tmp_path, monkeypatch
):
    workdir = shutil.copytree(tiny_finished, tmp_path / "run")
    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        before = checkpoints.latest()
    assert before

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    # The disk fills up between the checkpoint's parts and the rename that makes it one.
    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        longer(tiny_base, workdir)
    monkeypatch.undo()
    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        assert checkpoints.latest() == before
    assert int(longer(tiny_base, workdir).step) > before


def longer(tiny_base: Path, workdir: Path):
    """Goes on with the run for more updates than it was started for."""
    job = open_job(tiny_base, workdir, epochs=0.1, loop={"checkpoint_every": 2})
    return fit(job._replace(feed=job.feed._replace(steps=job.feed.steps + 2)))


def test_a_work_directory_of_other_settings_is_refused(tiny_base, tiny_finished, tmp_path):
    with pytest.raises(InputError, match=r"config\.epochs was 0\.1, is 0\.2"):
        run(tiny_base, tiny_finished, epochs=0.2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not written by hen_jax"):
        run(tiny_base, tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": {}}, r"config\.optimiser: no such field"),
        ({"optimizer": {"lr": 1e-3}}, r"config\.optimizer\.lr: no such field"),
        ({"optimizer": {}}, r"config\.optimizer\.learning_rate is missing"),
        ({"epochs": "two"}, r"config\.epochs is 'two'; it must be a number, more than 0"),
        ({"execution": {"remat": "all"}}, r"config\.execution\.remat is 'all'; allowed: 'none'"),
        ({"sources": ({"schema": "hed"},)}, r"config\.sources\[0\]\.path is missing"),
        ({"microbatches": True}, r"config\.microbatches is True"),
    ],
)
def test_a_config_field_nobody_reads_or_of_the_wrong_type_is_named(tiny_base, change, message):
    with pytest.raises(InputError, match=message):
        settings(SftSettings, config(tiny_base, **change))


SHARED_ROWS = {"row_length": 256, "batch_size": 8, "packing": "shared_prefix"}


@pytest.mark.parametrize("attention", ["splash", "cudnn"])
def test_a_shared_opening_is_refused_to_kernels_that_cannot_mask_it(tiny_base, tmp_path, attention):
    changes = {"data": SHARED_ROWS, "execution": {"attention": attention}}
    with pytest.raises(InputError, match=rf"attention='{attention}' cannot.*give 'xla' or 'chunk"):
        run(tiny_base, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 255}, r"window of 255 and config\.data\.row_length is 256; give .*fewest_rows"),
        ({"window": 64, "global_layers": (0,)}, "or rows of 64 at most"),
        ({"rope_scaling": LongRope((1.0,), (2.0,), 64, 1.0)}, "LongRoPE .* give .*fewest_rows"),
    ],
)
def test_a_shared_opening_is_refused_to_models_that_cannot_read_it(tiny_base, change, message):
    shared = settings(SftSettings, config(tiny_base, data=SHARED_ROWS))
    check_packing(shared, dataclasses.replace(CONFIG, window=256))
    other = dataclasses.replace(CONFIG, **change)
    check_packing(settings(SftSettings, config(tiny_base)), other)
    with pytest.raises(InputError, match=rf"config\.data\.packing is 'shared_prefix'.*{message}"):
        check_packing(shared, other)


def test_the_learning_rate_warms_up_and_falls():
    schedule = make_schedule(OptimizerConfig(1.0, warmup=0.1, final=0.2), 100)
    np.testing.assert_allclose(
        [schedule(0), schedule(5), schedule(10), schedule(100)], [0.0, 0.5, 1.0, 0.2], atol=1e-6
    )

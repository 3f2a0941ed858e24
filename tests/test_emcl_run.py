"""EMCL as a run: taken up again, drawn, exported."""

import math

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.data import samples
from hen_jax.data.schemas import read_documents
from hen_jax.data.splits import part_of
from hen_jax.recipes import emcl
from hen_jax.recipes.emcl_data import read_tasks
from hen_jax.recipes.emcl_episodes import draw_episode, put_episode
from hen_jax.runs import train
from hen_jax.runs.export.folders import export
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.settings import settings
from hen_jax.training.metrics import read_metrics
from hen_jax.verbs.run.launch import load_config

TASKS = ("SER", "SRER", "SPER", "SRPER")


def configured(tiny_base, **changes):
    fields = {
        "recipe": "emcl",
        "model": {"source": str(tiny_base)},
        "sources": ({"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},),
        "tasks": TASKS,
        "adapter": {"rank": 2, "alpha": 4.0},
        "steps": 4,
        # The exact modes are tested above; this one compiles in a fraction of their time.
        "emcl": {"mode": "first_order", "difficulty": "visited", "inner_learning_rate": 0.1},
        "episode": {"support_rows": 1, "query_rows": 1, "row_length": 256, "held_out": 1},
        "optimizer": {"learning_rate": 1e-2},
        "loop": {"checkpoint_every": 2},
    }
    return settings(emcl.EmclSettings, ConfigDict(fields | changes))


def run(tiny_base, workdir, **changes):
    return train.run(emcl.STAGE, configured(tiny_base, **changes), workdir)


def opened(tiny_base, workdir, **changes):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return train.open_job(emcl.STAGE, configured(tiny_base, **changes), mesh, tiny_base, workdir)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_shipped_config_has_every_episode(tiny_base, language):
    path = f"--config.sources=({{'schema': 'hed', 'path': 'shipped:hed/hed.{language}.jsonl'}},)"
    own = settings(emcl.EmclSettings, load_config("emcl:tiny", [path]))
    parts = read_tasks(own, known_tokenizer(tiny_base))
    groups = [{one.group for x in part.values() for one in x} for part in parts if part]
    assert len(groups[1]) == math.ceil(own.episode.meta_share * len(groups[0] | groups[1])) == 9
    assert not groups[0] & groups[1]
    for number in range(own.steps):
        assert (
            draw_episode(own, parts.train, parts.meta, own.seed, number).query.tokens.shape[0] == 4
        )


def test_a_trusted_file_without_training_groups_is_refused(tiny_base, tmp_path):
    source = samples.path("hed/hed.en.jsonl")
    rows = source.read_text("utf-8").splitlines(keepends=True)
    groups = [document.group for document in read_documents(source, "hed")]
    held = [row for row, group in zip(rows, groups, strict=True) if part_of(group) != "train"]
    (tmp_path / "trusted.jsonl").write_text("".join(held), "utf-8")
    trusted = ({"schema": "hed", "path": str(tmp_path / "trusted.jsonl")},)
    with pytest.raises(InputError, match="no meta-validation record has the task 'SER'"):
        read_tasks(configured(tiny_base, trusted=trusted), known_tokenizer(tiny_base))


@pytest.mark.slow  # three runs; .ci/run runs it each time
def test_a_run_taken_up_again_ends_bit_for_bit_as_one_that_was_not(
    tiny_base, tmp_path, monkeypatch
):
    whole = jax.device_get(run(tiny_base, tmp_path / "whole")._replace(key=()))
    calls = []

    def fails_at_the_fourth_step(*arguments):
        calls.append(arguments)
        if len(calls) == 5:  # the first was the evaluation before training
            raise RuntimeError("the machine is gone")
        return put_episode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(emcl, "put_episode", fails_at_the_fourth_step)
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut")
    ended = jax.device_get(run(tiny_base, tmp_path / "cut")._replace(key=()))
    jax.tree.map(np.testing.assert_array_equal, whole, ended)
    lines = [line for line in read_metrics(tmp_path / "cut") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"difficulty/SER", "competence", "active", "place/SPER"} <= lines[-1].keys()
    assert (tmp_path / "cut" / "curriculum.png").read_bytes()[:4] == b"\x89PNG"
    goes_on = opened(tiny_base, tmp_path / "next", start=str(tmp_path / "cut"))
    jax.tree.map(np.testing.assert_array_equal, goes_on.trainable, ended.params)
    other = {"start": str(tmp_path / "cut"), "adapter": {"rank": 3, "alpha": 4.0}}
    with pytest.raises(InputError, match=r"config\.start: .* give the same config\.adapter"):
        opened(tiny_base, tmp_path / "other", **other)
    exported = export(tmp_path / "cut", tmp_path / "out", "peft")
    assert exported.change > 0
    assert "meta-curriculum" in (tmp_path / "out" / "README.md").read_text()


def test_a_task_without_records_is_named(tiny_base, tmp_path):
    with pytest.raises(InputError, match=r"config\.tasks: no train record has the task 'SREP'"):
        run(tiny_base, tmp_path / "run", tasks=("SER", "SREP"))

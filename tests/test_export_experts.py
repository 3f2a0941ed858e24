"""All experts of a run exported at once, with what other tools need to take them."""

import json
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import run

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import make_mesh
from hen_jax.core.trees import flatten
from hen_jax.io import gguf_adapter, peft
from hen_jax.models.config import LoraConfig
from hen_jax.runs import train
from hen_jax.runs.earlier import PreviousRun
from hen_jax.runs.export.experts import export_experts, llama_line, modelfile, vllm_line
from hen_jax.runs.export.trained import open_trained

EXPERTS = {"calm": LoraConfig(4), "brisk": LoraConfig(20)}


def test_the_line_for_vllm_names_each_expert_and_a_rank_that_it_allows(tmp_path):
    earlier = PreviousRun({}, None, EXPERTS, tmp_path / "base")
    words = shlex.split(vllm_line(earlier, Path("out put"), "OWNER/NAME@main"))
    assert words[:3] == ["vllm", "serve", "OWNER/NAME"]
    assert words[words.index("--max-lora-rank") + 1] == "32"
    assert words[words.index("--lora-modules") + 1 :] == [
        "calm=out put/calm",
        "brisk=out put/brisk",
    ]
    assert shlex.split(vllm_line(earlier, Path("o")))[2] == str(tmp_path / "base")


def test_ollama_and_llama_cpp_find_the_expert_beside_the_base():
    assert modelfile("calm") == "FROM ./base.gguf\nADAPTER ./calm.gguf\n"
    words = shlex.split(llama_line(["calm", "brisk"], Path("o")))
    assert words[1:3] == ["-m", "o/base.gguf"]
    assert words[-4:] == ["--lora", "o/calm.gguf", "--lora", "o/brisk.gguf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "peft"], "trained no experts"),
        (["--format", "peft", "--expert", "calm"], "leave --expert out"),
    ],
)
def test_a_run_without_experts_and_a_contradiction_are_refused(
    tiny_finished, tmp_path, capsys, arguments, message
):
    fixed = ["export", "--run", str(tiny_finished), "--out", str(tmp_path / "o"), "--all-experts"]
    assert cli.main([*fixed, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("experts") / "run"
    sources = ({"schema": "steered", "path": "shipped:eea/distress.jsonl"},)
    experts = (
        {"name": "calm", "sources": sources},
        {"name": "brisk", "sources": sources, "rank": 3, "alpha": 12.0},
    )
    fields = {"recipe": "experts", "sources": (), "experts": experts, "epochs": 0.3}
    data = {"row_length": 512, "batch_size": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        run(tiny_base, workdir, **fields, data=data)
    return workdir


@pytest.mark.slow  # a whole run of experts is compiled and trained
def test_every_expert_is_written_in_both_forms_and_reads_back(finished, tmp_path, capsys):
    for form in ("peft", "gguf-lora"):
        fixed = ["--run", str(finished), "--out", str(tmp_path / form), "--format", form]
        assert cli.main(["export", *fixed, "--all-experts"]) == 0
        assert cli.main(["export", *fixed, "--all-experts"]) == 0  # ours: replaced
    said = capsys.readouterr().out
    assert f"calm={tmp_path}/peft/calm brisk={tmp_path}/peft/brisk" in said
    written = sorted(path.name for path in (tmp_path / "gguf-lora").glob("[!.]*"))
    assert written == ["brisk.Modelfile", "brisk.gguf", "calm.Modelfile", "calm.gguf"]
    for name in ("calm", "brisk"):
        trained = open_trained(finished, name)
        ours, config = flatten(trained.params), trained.model.config
        lora, as_peft = peft.read_adapter(tmp_path / "peft" / name, config)
        again, as_gguf = gguf_adapter.read_gguf_adapter(
            tmp_path / "gguf-lora" / f"{name}.gguf", config
        )
        assert lora.scale == again.scale == trained.lora.scale
        for path, leaf in ours.items():
            for read in (as_peft, as_gguf):
                np.testing.assert_array_equal(flatten(read)[path], np.asarray(leaf), err_msg=path)
        told = json.loads((tmp_path / "peft" / name / "adapter_config.json").read_text())
        assert told["r"] == trained.lora.rank


@pytest.mark.slow
def test_a_folder_of_somebody_else_is_found_before_anything_is_written(finished, tmp_path):
    (tmp_path / "brisk").mkdir()
    (tmp_path / "brisk" / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        export_experts(finished, tmp_path, "peft")
    assert [path.name for path in tmp_path.iterdir()] == ["brisk"]
    with pytest.raises(InputError, match="not with hf"):
        export_experts(finished, tmp_path / "other", "hf")

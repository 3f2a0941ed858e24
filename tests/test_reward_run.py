"""A reward model from its config to its export: fed, sharded, resumed, started, read back."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import config, open_job, read, run

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.records import require_record, write_record
from hen_jax.core.types import RowLimits
from hen_jax.data import samples
from hen_jax.data.crossed import require_crossed
from hen_jax.data.schemas import read_pairs
from hen_jax.evaluation.rewards import Answered
from hen_jax.recipes import reward
from hen_jax.recipes.policy_reward_kinds import reward_model
from hen_jax.recipes.policy_reward_source import Circumstance, RewardSource
from hen_jax.recipes.reward_report import control_accuracies
from hen_jax.runs import scored as scoring
from hen_jax.runs import train
from hen_jax.runs.compared import Asked, bounds_of, compared_parts
from hen_jax.runs.earlier import previous_run
from hen_jax.runs.export.folders import export
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.record import RUN_KIND
from hen_jax.runs.scored import compiled_scores, open_reward, score_documents
from hen_jax.runs.sources import Source
from hen_jax.runs.stage import rows_to_devices
from hen_jax.text.chat import render
from hen_jax.training.metrics import read_metrics
from hen_jax.verbs.plan import plan

FIELDS = {
    "recipe": "reward",
    "sources": ({"schema": "crossed", "path": "shipped:crossed/level.en.jsonl"},),
    "data": {"row_length": 352, "batch_size": 8},
    "epochs": 0.25,
    "loop": {"checkpoint_every": 2, "evaluators": ()},
}
HED = Source("hed", "shipped:hed/hed.en.jsonl")
STEERED = Source("steered", "shipped:eea/career.hard.jsonl")


@pytest.fixture(scope="module")
def words(tiny_base):
    return known_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory) -> Path:
    """A LoRA reward run with its report."""
    workdir = tmp_path_factory.mktemp("reward") / "run"
    run(tiny_base, workdir, **FIELDS | {"loop": {"evaluators": ("preferences",)}})
    return workdir


def losses(workdir: Path) -> list[float]:
    return [one["loss"] for one in read_metrics(workdir) if one["kind"] in ("train", "eval")]


@pytest.mark.slow
def test_sharded_over_eight_devices_and_in_microbatches_it_learns_the_same(finished, tmp_path):
    base = previous_run(finished).base
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    run(base, tmp_path / "sharded", **FIELDS, mesh=mesh, microbatches=2)
    np.testing.assert_allclose(losses(tmp_path / "sharded"), losses(finished), rtol=2e-4)


def test_what_is_cut_off_goes_on_bit_for_bit(tiny_base, finished, tmp_path, monkeypatch):
    def cut(job):
        put, left = rows_to_devices(job), iter(range(100))

        def prepare(state, frozen, batch):
            if next(left) == 6:  # held-out batches come first
                raise RuntimeError("the machine is gone")
            return put(state, frozen, batch)

        return prepare

    with monkeypatch.context() as patch:
        patch.setattr(reward, "STAGE", reward.STAGE._replace(prepare=cut))
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", **FIELDS)
    done = [one for one in read_metrics(tmp_path / "cut") if one["kind"] == "train"]
    assert len(done) > 0
    resumed = run(tiny_base, tmp_path / "cut", **FIELDS)
    assert len(done) < int(resumed.step)
    assert losses(tmp_path / "cut") == losses(finished)
    whole = open_trained(finished).params
    jax.tree.map(np.testing.assert_array_equal, whole, jax.device_get(resumed.params))


def test_shared_prompts_change_no_number_and_all_is_compiled_once(
    tiny_base, finished, tmp_path, caplog
):
    data = {"row_length": 640, "batch_size": 8, "shared_prompts": False}
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        run(tiny_base, tmp_path / "apart", **FIELDS | {"data": data})
    for name in ("step", "score"):
        said = f"XLA compilation of jit({name})"
        assert sum(said in record.getMessage() for record in caplog.records) == 1
    np.testing.assert_allclose(losses(tmp_path / "apart"), losses(finished), rtol=2e-4)


def test_the_report_has_controls_and_calibration(finished):
    found = json.loads((finished / "reward.json").read_text())
    level = found["accuracy"]["crossed/level"]
    assert level["bag_of_words"] == level["length"] == 0.5
    assert level["pairs"] == 2 * level["model"]["groups"]
    assert found["bag_of_words_on_training_mixture"] == 0.5
    assert found["tasks"]["level"]["spread"] > 0
    assert sum(one["pairs"] for one in found["calibration"]["bins"]) == level["pairs"]
    assert found["temperature"] > 0
    assert (finished / "reward.png").stat().st_size > 1000


def test_a_control_that_reads_replies_alone_is_told_beside(tiny_base, finished, tmp_path):
    def asked(**changes):
        return read(config(tiny_base, **FIELDS | {"control": str(tmp_path)} | changes))[1]

    record = require_record(finished, RUN_KIND)
    shutil.copy(finished / "reward.json", tmp_path)
    write_record(tmp_path, RUN_KIND, record, files=False)
    with pytest.raises(
        InputError, match=r"config\.control: .* no run with config\.reads='replies'"
    ):
        control_accuracies(asked())
    record["config"]["reads"] = "replies"
    write_record(tmp_path, RUN_KIND, record, files=False)
    found = control_accuracies(asked())
    assert found["crossed/level"] == found["crossed"]
    with pytest.raises(InputError, match=r"config\.control: .* another config\.level"):
        control_accuracies(asked(level="turn"))


@pytest.mark.parametrize("form", ["hf", "peft"])
def test_the_export_scores_as_the_run_does(finished, tmp_path, form):
    out = tmp_path / "out"
    exported = export(finished, out, form)
    assert exported.what == "scores"
    assert exported.difference < 1e-4
    assert exported.change > 1e-3
    record = json.loads((out / "hen_jax.json").read_text())
    assert record["reward"]["tasks"] == json.loads((finished / "reward.json").read_text())["tasks"]
    assert "nats per prompt" in (out / "README.md").read_text()


def test_a_policy_is_rewarded_by_what_hen_score_gives(finished, tmp_path):
    out = tmp_path / "out"
    export(finished, out, "hf")
    pairs = read_pairs(samples.path("crossed/level.en.jsonl"), "crossed")[:3]
    answered = [Answered(pair.prompt, pair.chosen[0].content, {"task": "new"}) for pair in pairs]
    source = RewardSource("model", path=str(out))
    given = reward_model(source, Circumstance(0, 512))(answered)
    scored = score_documents(
        open_reward(out),
        [render(pair.conversations()[0], known_tokenizer(out)).tokens for pair in pairs],
    )
    known = json.loads((finished / "reward.json").read_text())["tasks"].values()
    mean = np.mean([one["mean"] for one in known])
    spread = np.sqrt(np.mean([one["spread"] ** 2 for one in known]))
    np.testing.assert_allclose(given, (np.ravel(scored) - mean) / (spread + 1e-6), rtol=1e-3)


def test_a_reward_model_starts_from_a_finetuned_trunk(tiny_base, tiny_finished, tmp_path):
    job = open_job(tiny_base, tmp_path / "run", **FIELDS, start=str(tiny_finished))
    saved = train.continued_from(tiny_finished, job.model, job.settings.adapter).trainable["blocks"]
    jax.tree.map(np.testing.assert_array_equal, job.trainable["blocks"], saved)
    b = job.trainable["blocks"]["attn"]["q"]["lora_b"]
    assert float(abs(b).max()) > 0  # that of a new adapter is 0
    assert set(job.trainable) == {"blocks", "score"}
    assert "score" not in job.frozen


def test_a_language_model_does_not_start_from_a_reward_model(tiny_base, finished, tmp_path):
    with pytest.raises(InputError, match=r"config\.start: .* trained a reward model"):
        open_job(tiny_base, tmp_path / "run", start=str(finished))


def test_a_reward_folder_is_no_language_model(finished, tmp_path):
    export(finished, tmp_path / "model", "hf")
    with pytest.raises(InputError, match=r"config\.model\.source is a reward model"):
        open_job(tmp_path / "model", tmp_path / "run")
    job = open_job(tmp_path / "model", tmp_path / "again", **FIELDS)
    head = open_trained(finished).params["score"]["kernel"]
    np.testing.assert_array_equal(job.trainable["score"]["kernel"], head)


def test_crossings_are_built_within_each_part(words):
    crossings = ("role", "personality", "statement", "turn")
    asked = Asked((HED, STEERED), "turn", crossings)
    data = reward.ComparisonConfig(row_length=1024)
    parts = compared_parts(asked, data, words)
    groups = [{name for pair in part.pairs() for name in pair.group.split("+")} for part in parts]
    assert not groups[0] & groups[1]
    for part in parts:
        pairs = part.pairs()
        for kind in crossings:
            require_crossed([pair for pair in pairs if pair.kind == kind])
            assert any(pair.kind == kind for pair in pairs)
        assert {"SER", "SPER", "SRER", "SRPER", *crossings} <= set(part.tasks.values())
    bounds = bounds_of(parts, data)
    assert bounds.row % 32 == 0
    assert bounds.row < 1024
    assert bounds.replies >= 4  # a reply, its three rejected ones, and those of crossings
    only = compared_parts(asked._replace(plain=False), data, words).train.pairs()
    require_crossed(only)
    assert {pair.kind for pair in only} == set(crossings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crossings": ("mood",)}, r"config\.crossings names 'mood'; allowed: role"),
        ({"crossings": ("turn",)}, "'turn', which is built from a source of the schema 'steered'"),
        ({"sources": ({"schema": "cped", "path": "x"},)}, "'cped' holds no preference pairs"),
        ({"data": {"row_length": 16, "batch_size": 8}}, r"\(180 pairs\) are all longer"),
        ({"loop": {"evaluators": ("replies",)}}, "names 'replies'; allowed: preferences"),
        ({"execution": {"attention": "splash"}}, r"config\.data\.shared_prompts=False"),
        ({"reward": {"beta": 0.0}}, r"config\.reward\.beta is 0"),
    ],
)
def test_bad_input_is_one_line(tiny_base, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tiny_base, tmp_path / "run", **FIELDS | changes)


@pytest.mark.slow
def test_the_stage_is_planned(tiny_base, monkeypatch):
    pytest.importorskip("libtpu", reason="hen plan compiles for TPUs: pip install 'hen_jax[plan]'")
    monkeypatch.setattr("hen_jax.verbs.plan.load_config", lambda *_: config(tiny_base, **FIELDS))
    (found,) = plan("a file", [], "v5e:1x1")
    assert found.fits
    assert found.tokens == 8 * 352


@pytest.fixture(scope="module")
def exports(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {form: export(finished, folder / form, form).folder for form in ("hf", "peft")}


def scored(out: Path, *more: str) -> list[dict]:
    assert cli.main(["score", f"--out={out}", *more]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_file_is_scored_in_its_order_by_folder_and_by_adapter(
    finished, exports, words, tmp_path, capsys
):
    file = tmp_path / "level.jsonl"
    lines = samples.path("crossed/level.en.jsonl").read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:12]))
    data = [f"--input={file}", "--schema=crossed"]
    whole = scored(tmp_path / "a.jsonl", f"--model={exports['hf']}", *data)
    pairs = read_pairs(file, "crossed")
    assert [one["id"] for one in whole] == [pair.id for pair in pairs]
    base = previous_run(finished).base
    adapter = [f"--model={base}", f"--adapter={exports['peft']}"]
    beside = scored(tmp_path / "b.jsonl", *adapter, *data, "--batch-size=3")
    sides = [[one[side] for side in ("chosen", "rejected")] for one in whole]
    np.testing.assert_allclose(
        [[one[side] for side in ("chosen", "rejected")] for one in beside], sides, atol=1e-4
    )
    assert np.std(sides) > 1e-2
    beta = json.loads((finished / "reward.json").read_text())["temperature"]
    expected = [1 / (1 + np.exp((second - first) / beta)) for first, second in sides]
    for scores in (whole, beside):
        np.testing.assert_allclose([one["share"] for one in scores], expected, atol=1e-3)
    # One by one, as transformers would see them.
    reward = open_reward(exports["hf"])
    for pair, expected in list(zip(pairs, sides, strict=True))[:3]:
        for side, value in zip(pair.conversations(), expected, strict=True):
            alone = score_documents(reward, [render(side, words).tokens], 1)
            assert alone[0] == pytest.approx(value, abs=1e-4)
    assert "documents of" in capsys.readouterr().out


def test_a_model_that_is_asked_again_is_not_compiled_again(exports):
    reward = open_reward(exports["hf"])
    asked = [np.arange(3, 3 + length) for length in (9, 30, 12, 5, 41, 17)]
    first = score_documents(reward, asked[:3])
    programs = scoring._program.cache_info().currsize
    program = compiled_scores(reward, 4, RowLimits(64, 0, 4))
    assert program._cache_size() == 1
    score_documents(open_reward(exports["hf"]), asked[3:])
    assert (scoring._program.cache_info().currsize, program._cache_size()) == (programs, 1)
    np.testing.assert_array_equal(score_documents(reward, asked[:3]), first)


def test_conversations_are_scored_too_and_too_long_ones_are_counted(exports, tmp_path, capsys):
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    long = [said[0] | {"content": "x " * 3000}, said[1]]
    rows = [{"id": name, "messages": long if name == "b" else said} for name in "abc"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = scored(
        tmp_path / "out.jsonl",
        f"--model={exports['hf']}",
        f"--input={tmp_path / 'in.jsonl'}",
        "--schema=messages",
    )
    assert [one["id"] for one in found] == ["a", "b", "c"]
    assert found[0]["score"] == found[2]["score"] != 0
    assert found[1]["score"] is None
    assert 0 < found[0]["level"] < 1
    assert found[0]["reward"] is None  # no task of these conversations was held out
    assert "1 longer than the model's 2048 positions" in capsys.readouterr().out


def test_a_language_model_scores_nothing(tiny_base, tmp_path, capsys):
    words = ["--schema=messages", f"--input={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert cli.main(["score", f"--model={tiny_base}", *words]) == 2
    assert "is no reward model" in capsys.readouterr().err

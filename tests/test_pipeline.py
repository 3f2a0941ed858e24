"""A pipeline: wired, skipped, resumed, made anew; what it made before is never lost."""

import shutil
from pathlib import Path

import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError, StoppedError
from hen_jax.core.files import RECORD, read_json, write_json
from hen_jax.runs.settings import settings
from hen_jax.training.metrics import read_metrics
from hen_jax.training.progress import Place, progress_line
from hen_jax.verbs.pipeline import pipeline as pipelines
from hen_jax.verbs.pipeline import steps as pipeline_steps
from hen_jax.verbs.pipeline.pipeline import Ledger, bring, run_pipeline, seconds_of, set_aside_old
from hen_jax.verbs.pipeline.settings import PipelineSettings, plan_stages
from hen_jax.verbs.pipeline.steps import StepWork, works_of
from hen_jax.verbs.run.launch import load_config, settings_of

PLACE = Place("[1/1 a]")


def read(named: str, *overrides: str) -> PipelineSettings:
    config = load_config(named, overrides)
    return settings(settings_of(config.get("recipe")), config)


def of(*stages: dict, **fields) -> PipelineSettings:
    node = {"recipe": "pipeline", "model": {"source": "tiny"}, "stages": stages, **fields}
    return settings(PipelineSettings, node)


SFT = {"name": "sft", "config": "sft:tiny"}


@pytest.mark.parametrize("named", ["pipeline", "pipeline:tiny", "hen_zh", "hen_zh:tiny"])
def test_every_stage_of_the_built_in_pipelines_is_good_and_reads_earlier_ones(named, tmp_path):
    planned = plan_stages(read(named), tmp_path)
    by_name = {one.step.name: one for one in planned}
    experts = [] if named.startswith("hen_zh") else ["experts"]
    assert list(by_name) == ["sft", "reward", "emcl", "policy", *experts]
    assert by_name["emcl"].reads == ("sft",)
    assert set(by_name["policy"].reads) == {"emcl", "reward/export/hf", "reward/reward.json"}
    policy = by_name["policy"].settings
    assert policy.start == str(tmp_path / "emcl")
    assert policy.rewards[0].path == str(tmp_path / "reward/export/hf")
    assert by_name["policy"].written["start"] == "stage:emcl"
    assert {one.settings.model.source for one in planned} == {read(named).model.source}


def test_a_field_of_a_stage_is_set_by_its_name(tmp_path):
    found = read("pipeline:tiny", "--config.sft.epochs=0.25", "--config.seed=7")
    sft, reward, *_ = plan_stages(found, tmp_path)
    assert (sft.settings.epochs, sft.settings.seed, reward.settings.seed) == (0.25, 7, 7)
    assert reward.settings.epochs == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of({"name": "SFT", "config": "sft"}), "name is 'SFT'; give small letters"),
        (lambda: of({"name": "report", "config": "sft"}), "none of prepare, evaluate"),
        (lambda: of(SFT, SFT), r"stages are called \['sft', 'sft'\]"),
        (lambda: of(), "give at least one"),
        (lambda: of(SFT, exports=("sft/gguf",)), "exports has 'sft/gguf'; give STAGE/hf"),
        (lambda: of(SFT, exports=("emcl/hf",)), "exports has 'emcl/hf'"),
        (lambda: plan(SFT | {"fields": ("epoch=1",)}), r"stage 'sft' \(sft:tiny\): config.epoch: "),
        (lambda: plan(SFT | {"fields": ("start=stage:emcl",)}), "stage:emcl is no earlier stage"),
        (lambda: plan(SFT | {"fields": ("start=stage:sft",)}), "stage:sft is no earlier stage"),
        (lambda: plan(SFT | {"config": "pipeline:tiny"}), "this config is a pipeline of stages"),
        (lambda: plan(SFT | {"config": "sfd"}), "sfd: no such config file"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_before_anything_is_trained(make, message):
    with pytest.raises(InputError, match=message):
        make()


def plan(*stages: dict):
    return plan_stages(of(*stages), Path("nowhere"))


class Files:
    """Steps that write a file: what `bring` makes of them, without a model."""

    def __init__(self, folder: Path):
        self.folder, self.made, self.read = folder, [], {"data": "1"}
        self.ledger = Ledger(folder, of(SFT))

    def work(self, name: str, after: tuple[str, ...] = (), fails: bool = False) -> StepWork:
        path = self.folder / name

        def make(place: Place) -> None:
            self.made.append(name)
            path.mkdir(exist_ok=True)
            if fails:
                raise StoppedError("asked to stop")
            (path / "out").write_text(f"{name} {self.read}")

        def outputs() -> str | None:
            return (path / "out").read_text() if (path / "out").exists() else None

        return StepWork(name, "", lambda: dict(self.read), make, outputs, after, aside=path)

    def bring(self, *works: StepWork) -> list[str]:
        """What is made of these, by a process of its own."""
        self.made.clear()
        self.ledger = Ledger(self.folder, of(SFT))
        for work in works:
            bring(self.ledger, work, PLACE)
        return list(self.made)


def test_a_step_is_made_once_and_again_when_what_it_reads_changed(tmp_path, capsys):
    files = Files(tmp_path)
    chain = [files.work("a"), files.work("b", after=("a",))]
    assert files.bring(*chain) == ["a", "b"]
    assert files.bring(*chain) == []
    assert "[1/1 a] b: done, and what it reads is as it was" in capsys.readouterr().out
    files.read = {"data": "2"}
    assert files.bring(*chain) == ["a", "b"]
    assert "b is made anew, as what it reads changed: a, data" in capsys.readouterr().out
    assert (tmp_path / "a.old-1" / "out").read_text() == "a {'data': '1'}"
    assert (tmp_path / "b.old-1" / "out").exists()
    assert files.bring(*chain) == []
    shutil.rmtree(tmp_path / "b")
    assert files.bring(*chain) == ["b"]
    assert not (tmp_path / "b.old-2").exists()


def test_a_step_that_was_stopped_goes_on_in_its_folder_and_holds_up_later_ones(tmp_path):
    files = Files(tmp_path)
    with pytest.raises(StoppedError):
        files.bring(files.work("a", fails=True), files.work("b", after=("a",)))
    assert files.made == ["a"]
    (tmp_path / "a" / "checkpoint").write_text("half")
    with pytest.raises(InputError, match="b reads what a makes: run --stage=a first"):
        files.bring(files.work("b", after=("a",)))
    assert files.bring(files.work("a"), files.work("b", after=("a",))) == ["a", "b"]
    assert (tmp_path / "a" / "checkpoint").read_text() == "half"


def test_a_step_that_was_stopped_is_made_anew_where_its_settings_changed_meanwhile(tmp_path):
    files = Files(tmp_path)
    with pytest.raises(StoppedError):
        files.bring(files.work("a", fails=True))
    files.read = {"data": "2"}
    assert files.bring(files.work("a")) == ["a"]
    assert (tmp_path / "a.old-1").is_dir()


def test_what_a_step_needs_is_made_before_it(tmp_path):
    files = Files(tmp_path)
    export = files.work("a/export", after=("a",))
    reader = files.work("b", after=("a/export",))._replace(needs=(export,))
    assert files.bring(files.work("a"), reader) == ["a", "a/export", "b"]


def test_nothing_that_was_set_aside_is_written_over(tmp_path):
    for number in (1, 2):
        (tmp_path / "a").mkdir()
        assert set_aside_old(tmp_path / "a") == tmp_path / f"a.old-{number}"
    assert set_aside_old(tmp_path / "a") is None


def test_the_time_left_is_by_what_finished_steps_took(tmp_path):
    files = Files(tmp_path)
    a, b = files.work("a")._replace(minutes=2.0), files.work("b")._replace(minutes=3.0)
    assert seconds_of(files.ledger, [a, b], [a, b]) == 300.0
    ledger = files.ledger
    ledger.put("a", pipelines.StepRecord({}, "done", 30.0))
    assert seconds_of(ledger, [a, b], [a, b]) == 30.0 + 45.0
    assert seconds_of(ledger, [a, b], [b]) == 45.0
    ledger.put("a", pipelines.StepRecord({}, None, 30.0))
    assert seconds_of(ledger, [a, b], [a, b]) == 300.0


def test_progress_tells_the_stage_and_the_time_left_with_what_follows():
    values = {
        "loss": 1.5, "learning_rate": 1e-3, "seconds_per_update": 2.0, "tokens_per_second": 10.0,
    }  # fmt: skip
    line = progress_line(10, 20, values, Place("[3/9 emcl]", 100.0))
    assert line.startswith("[3/9 emcl] step 10/20: loss 1.5, ")
    assert "20 s left (2 min with what follows)" in line
    assert progress_line(10, 20, values).endswith("10 tokens/s, 20 s left")


@pytest.fixture
def trained(monkeypatch, tiny_finished):
    """Training replaced by a copy of a finished run; how often it was asked for."""
    asked = []

    def run(stage, given, folder, place):
        asked.append((folder.name, place.title))
        shutil.copytree(tiny_finished, folder, dirs_exist_ok=True)
        for path in (folder / "checkpoints").glob("*/manifest.json"):
            path.write_text(path.read_text() + " " * len(asked))  # no two are alike

    monkeypatch.setattr(pipeline_steps.train, "run", run)
    return asked


@pytest.fixture
def evaluated(monkeypatch):
    """What `hen evaluate` is asked; it measures nothing."""
    asked = []

    def evaluate(evaluating):
        asked.append(evaluating)
        write_json(evaluating.out / "results.json", {"figures": [], "not_measured": []})

    monkeypatch.setattr(pipeline_steps, "evaluate", evaluate)
    return asked


LORA = "adapter={'rank': 2, 'alpha': 4.0}"


def small(tiny_base: Path, *overrides: str) -> PipelineSettings:
    """Two stages of one config, and an export."""
    return of(
        {"name": "sft", "config": "sft:tiny", "fields": (LORA, *overrides)},
        {"name": "more", "config": "sft:tiny", "fields": (LORA, "start=stage:sft")},
        model={"source": str(tiny_base)},
        exports=("more/peft",),
    )


def test_from_data_to_report_and_nothing_twice(tiny_base, trained, evaluated, tmp_path, capsys):
    workdir = tmp_path / "pipe"
    run_pipeline(small(tiny_base), workdir)
    assert trained == [("sft", "[2/6 sft]"), ("more", "[3/6 more]")]
    (card,) = read_json(workdir / "prepare" / "data.json")["data"]
    assert (card["records"], card["stages"]) == (320, ["sft", "more"])
    assert sum(card["parts"].values()) == 320
    assert (workdir / "more/export/peft/adapter_model.safetensors").exists()
    (asked,) = evaluated
    base, *arms = asked.arm
    assert base == f"base={tiny_base}"
    assert arms == [
        f"{name}={tiny_base}:{workdir / name / 'export/peft'}" for name in ("sft", "more")
    ]
    page = (workdir / "report.html").read_text()
    assert card["sha256"] in page
    assert "Written for hen_jax by a language model" in page

    capsys.readouterr()
    run_pipeline(small(tiny_base), workdir)
    assert len(trained) == 2
    assert capsys.readouterr().out.count("done, and what it reads is as it was") == 9

    run_pipeline(small(tiny_base, "loop.checkpoint_every=7"), workdir)  # may change
    assert len(trained) == 2
    run_pipeline(small(tiny_base, "epochs=0.5"), workdir)
    assert trained[2:] == trained[:2]
    names = {path.name for path in workdir.iterdir() if not path.name.startswith(".")}
    stages = {"sft", "more", "sft.old-1", "more.old-1"}
    assert names == {RECORD, "prepare", *stages, "evaluate", "report.html"}
    assert list(tmp_path.iterdir()) == [workdir]


def test_one_step_alone(tiny_base, trained, tmp_path):
    workdir = tmp_path / "pipe"
    with pytest.raises(InputError, match="--stage=sfd: no such step; there are prepare, sft, more"):
        run_pipeline(small(tiny_base), workdir, "sfd")
    with pytest.raises(InputError, match="more reads what sft makes: run --stage=sft first"):
        run_pipeline(small(tiny_base), workdir, "more")
    run_pipeline(small(tiny_base), workdir, "sft")
    assert [name for name, _ in trained] == ["sft"]
    assert not (workdir / "report.html").exists()


def test_data_in_a_folder_is_an_input_too(tiny_base, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text("1")
    source = f"sources=({{'schema': 'messages', 'path': {str(data)!r}}},)"
    asked = small(tiny_base, source)
    prepare, sft, *_ = works_of(asked, plan_stages(asked, tmp_path), tmp_path)
    before = prepare.inputs(), sft.inputs()
    (data / "a.jsonl").write_text("2")
    after = prepare.inputs(), sft.inputs()
    for one, other in zip(before, after, strict=True):
        assert {key for key in one if one[key] != other[key]} == {str(data)}


def test_a_folder_of_somebody_else_is_left_alone(tiny_base, trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="was not written by hen_jax as the folder of a pipeline"):
        run_pipeline(small(tiny_base), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert trained == []


def test_a_step_of_a_single_run_is_refused(tmp_path, capsys):
    words = ["run", "--config=sft:tiny", f"--workdir={tmp_path}", "--stage=sft"]
    assert cli.main(words) == 2
    assert "--stage=sft: sft:tiny is one stage, and no pipeline" in capsys.readouterr().err


QUICK = ("epochs=0.05", "loop.checkpoint_every=1")


@pytest.mark.slow  # trains, twice: a minute
def test_killed_between_and_within_stages_it_ends_as_one_that_was_not(
    tiny_base, tmp_path, monkeypatch
):
    def whole() -> PipelineSettings:
        return of(
            {"name": "sft", "config": "sft:tiny", "fields": QUICK},
            {"name": "more", "config": "sft:tiny", "fields": (*QUICK, "start=stage:sft")},
            model={"source": str(tiny_base)},
            suites={"names": ("high_context",), "limit": 1, "max_new_tokens": 4},
        )

    run_pipeline(whole(), tmp_path / "whole")
    train, calls = pipeline_steps.train.run, []

    def stopped(stage, given, folder, place):
        calls.append(folder.name)
        if len(calls) == 2:
            raise StoppedError("between stages")
        return train(stage, given, folder, place)

    monkeypatch.setattr(pipeline_steps.train, "run", stopped)
    with pytest.raises(StoppedError):
        run_pipeline(whole(), tmp_path / "cut")
    run_pipeline(whole(), tmp_path / "cut")
    assert calls == ["sft", "more", "more"]
    for name in ("sft", "more"):
        assert losses(tmp_path / "cut" / name) == losses(tmp_path / "whole" / name)
    results = [read_json(tmp_path / one / "evaluate/results.json") for one in ("cut", "whole")]
    assert results[0]["figures"] == results[1]["figures"] != []


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


def test_the_adapter_of_a_reward_is_read_too():
    rewards = ({"kind": "model", "path": "base", "adapter": "exports/r", "calibration": None},)
    assert set(pipeline_steps._paths({"rewards": rewards})) == {"base", "exports/r"}

"""The `hen` command as a user meets it: quick help, one clear line for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hen_jax import cli
from hen_jax.data import samples

SFT = Path(__file__).parent.parent / "configs" / "sft.py"


def test_help_answers_at_once_and_loads_neither_jax_nor_transformers():
    script = (
        "import sys\n"
        "try:\n    from hen_jax.cli import main; main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('jax', 'flax', 'transformers', 'numpy') if m in sys.modules])"
    )
    began = os.times()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "hen import" in done.stdout
    ended = os.times()
    # Of the processor, not the clock: the other tests keep the machine busy.
    spent = ended.children_user + ended.children_system
    assert spent - began.children_user - began.children_system < 0.5


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the random model, through the command."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEN_CACHE", str(folder / "cache"))
        command = ["run", f"--config={SFT}:tiny", f"--workdir={folder / 'run'}"]
        small = ["--config.data.batch_size=8", "--config.epochs=0.5"]
        assert cli.main([*command, *small]) == 0
        yield folder


def test_a_finished_run_says_what_to_do_next_and_trains_no_more(finished, capsys):
    lines = (finished / "run" / "metrics.jsonl").read_text()
    command = ["run", f"--config={SFT}:tiny", f"--workdir={finished / 'run'}"]
    assert cli.main([*command, "--config.data.batch_size=8", "--config.epochs=0.5"]) == 0
    said = capsys.readouterr().out
    assert "Finished after" in said
    assert "hen export --run" in said
    assert (finished / "run" / "metrics.jsonl").read_text() == lines


def test_a_run_is_exported_and_answers(finished, capsys):
    out = finished / "export"
    assert cli.main(["export", f"--run={finished / 'run'}", "--format=hf", f"--out={out}"]) == 0
    assert "reloaded logits differ from the run's by 0 " in capsys.readouterr().out
    ask = ["generate", f"--model={out}", "--prompt=It rains.", "--prompt=He left."]
    assert cli.main([*ask, "--max-new-tokens=4", "--temperature=0"]) == 0
    assert capsys.readouterr().out.count(">") >= 2


def fails(capsys, *arguments: str) -> str:
    """What the command says when it refuses; it must exit with 2 and say one line."""
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("hen: ")
    return said


def hed_lines() -> list[dict]:
    text = samples.path("hed/hed.en.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()[:8]]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda row: json.dumps(row | {"emotion": "hangry"}), (":3:emotion:", "allowed: ")),
        (
            lambda row: json.dumps({k: v for k, v in row.items() if k != "response"}),
            (":3:response",),
        ),
        (lambda row: json.dumps(row)[:-9], (":3:", "JSON")),
        (lambda row: json.dumps(row | {"response": ""}), (":3:response",)),
    ],
    ids=["label", "missing", "broken", "empty"],
)
def test_a_bad_hed_line_is_named_with_its_remedy(finished, tmp_path, capsys, spoil, expected):
    rows = hed_lines()
    lines = [json.dumps(row) for row in rows]
    lines[2] = spoil(rows[2])
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(lines) + "\n")
    said = fails(
        capsys,
        "run",
        f"--config={SFT}:tiny",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.batch_size=8",
        f"--config.sources=({{'schema': 'hed', 'path': '{path}'}},)",
    )
    assert str(path) in said
    for part in expected:
        assert part in said
    assert not (tmp_path / "run").exists()


def test_other_bad_input_is_one_line_too(finished, tmp_path, capsys, monkeypatch):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("mine")
    assert "not written by hen_jax" in fails(capsys, "import", "tiny", str(thesis))
    assert (thesis / "chapter.txt").read_text() == "mine"
    assert "no config file" in fails(capsys, "run", "--config=no.py", "--workdir=x").replace(
        "no such config", "no config"
    )
    assert "epoch" in fails(
        capsys, "run", f"--config={SFT}:tiny", "--workdir=x", "--config.epoch=3"
    )
    assert "no adapter" in fails(
        capsys, "export", f"--run={finished / 'run'}", "--format=peft", f"--out={tmp_path / 'o'}"
    )
    assert "holds no run" in fails(
        capsys, "export", f"--run={thesis}", "--format=hf", f"--out={tmp_path / 'o'}"
    )
    assert "known by name" in fails(capsys, "import", "smollm3", str(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def test_a_full_disk_is_told_in_one_line(finished, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hen_jax.io.shards.write_file", full)
    out = tmp_path / "out"
    said = fails(capsys, "export", f"--run={finished / 'run'}", "--format=hf", f"--out={out}")
    assert "the disk is full" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["config"], ["--help"], ["data", "schemas"]])
def test_a_reader_that_stops_early_is_no_error(words):
    """`hen ... | head -1`: the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hen_jax.cli", *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == ""
    # argparse ends by itself after --help.
    assert done.returncode == (0 if words == ["--help"] else cli.CLOSED)


def test_a_broken_pipe_elsewhere_is_told(capsys, monkeypatch):
    def broken(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("hen_jax.verbs.data.checking.scrub", broken)
    assert "Broken pipe" in fails(capsys, "data", "scrub", "a.jsonl", "--out", "b.jsonl")

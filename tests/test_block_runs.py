"""The commands of pages that newcomers paste, run in their order on a random model.

A folder holds what the reader would bring; `--config=NAME` becomes `NAME:tiny` with a few rows of
data. A command of these pages that is not run has its reason in `NOT_HERE`.
"""

import json
import shlex
from pathlib import Path

import pytest
from test_blocks import BLOCKS, holds_commands, lines_of

from hen_jax import cli
from hen_jax.data import samples
from hen_jax.runs.config_files import find_config, open_config

FOLLOWED = ["README.md", "howto.md", "export.md", "generate.md", "models.md"]

NOT_HERE = {
    "hen chat": "it waits for a person: tests/test_generate_file.py",
    "hen serve": "it waits for clients: tests/test_serve_command.py",
    "hen rate": "it waits for people: tests/test_rate.py",
    "hen plan": "minutes of compiling: tests/test_planning.py, tests/test_launch_commands.py",
    "hen run --config=pipeline": "minutes: tests/test_tiny_configs.py",
    "hen run --config=sft:pod": "eight devices: tests/test_launch_commands.py",
    "hen synthesize --backend endpoint:": "an endpoint: tests/test_synthesize.py",
    "hen export --run runs/experts": "tests/test_export_experts.py",
    "hen run --config=router": "tests/test_tiny_configs.py",
}
"""How a command begins -> why it is not run here, and by which test it is."""

BROUGHT = {"OWNER/NAME": "tiny", "smollm2-135m": "tiny", "mine.gguf": "tiny"}
"""What a command would fetch or find -> what takes its place."""

ADAPTER = "--config.adapter={'rank': 4, 'alpha': 8.0}"
FEW = {
    "sft": ["--config.epochs=0.05", ADAPTER],
    "reward": ["--config.epochs=0.05"],
    "preference": ["--config.epochs=0.02", ADAPTER],
}
"""Recipe -> what makes a run short, and as large models are trained."""


def commands_of(name: str) -> list[str]:
    """The `hen` commands of the blocks of a page."""
    lines = [
        line
        for block in BLOCKS
        if block.page.name == name and holds_commands(block)
        for line in lines_of(block.text)
    ]
    return [line for line in lines if line.startswith("hen ")]


def adapted(line: str) -> list[str]:
    """The words of a command, for a random model."""
    words = [BROUGHT.get(word, word) for word in shlex.split(line)[1:]]
    flags = [word for word in words if word.startswith("--config=")]
    if not flags:
        return words
    config = flags[0].removeprefix("--config=")
    recipe, _, variant = config.partition(":")
    if not variant:
        assert "tiny" in open_config(find_config(recipe)).variants
        words[words.index(flags[0])] = f"--config={recipe}:tiny"
    return words if words[0] == "show" else [*words, *FEW.get(recipe, [])]


def bring(folder: Path) -> None:
    """What the reader has: files of conversations, pairs and votes."""

    def lines(name: str, rows: list[dict]) -> None:
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")

    asked = [f"Thing number {number} went wrong." for number in range(40)]
    said = [
        [{"role": "user", "content": one}, {"role": "assistant", "content": "Oh no."}]
        for one in asked
    ]
    lines("prompts.jsonl", [{"prompt": one} for one in asked[:2]])
    pairs = [
        {"id": f"p{number}", "prompt": one, "chosen": "Oh no. Sit down.", "rejected": "Try harder."}
        for number, one in enumerate(asked)
    ]
    lines("pairs.jsonl", pairs)
    (folder / "talk.json").write_text(json.dumps(said[0][:1]), "utf-8")
    (folder / "rated").mkdir()
    votes = [
        {"item": one["id"], "annotator": who, "choice": "a"}
        for one in pairs
        for who in ("ann", "bo")
    ]
    lines("rated/votes.jsonl", votes)
    lines("mine.jsonl", [{"messages": one} for one in said])


def made_before(page: str) -> list[list[str]]:
    """The commands that make what a page takes for granted."""
    told = " ".join(commands_of(page))
    made = [["import", "tiny", "models/smollm2-135m"]]
    if "--workdir=runs/sft" not in told:
        made.append(["run", "--config=sft:tiny", *FEW["sft"], "--workdir=runs/sft"])
        if "--out exports/adapter" not in told:
            made.append(
                ["export", "--run", "runs/sft", "--format", "peft", "--out", "exports/adapter"]
            )
    return made


@pytest.mark.slow  # trains, exports and generates: a minute or two a page
@pytest.mark.parametrize("page", FOLLOWED)
def test_the_commands_of_a_page_run_in_their_order(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "cache"))
    bring(tmp_path)
    if page == "README.md":  # its file has the schema hed, and a path of the checkout
        (tmp_path / "mine.jsonl").write_bytes(samples.path("hed/hed.en.jsonl").read_bytes())
        (tmp_path / "hen_jax").symlink_to(Path(samples.__file__).parents[2])
    ran = [line for line in commands_of(page) if not any(map(line.startswith, NOT_HERE))]
    assert len(ran) > 2
    for line in [*made_before(page), *ran]:
        words = adapted(line) if isinstance(line, str) else line
        code = cli.main(words)
        assert code == 0, f"{line}\nas {shlex.join(words)}\n{capfd.readouterr().err[-600:]}"


def test_every_reason_is_needed():
    lines = [line for page in FOLLOWED for line in commands_of(page)]
    assert not [one for one in NOT_HERE if not any(line.startswith(one) for line in lines)]

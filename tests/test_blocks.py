"""Every block of every page is of a kind that a test knows, and what it says is tried.

Commands are parsed by what would parse them, with their config and every field that they set;
`tests/test_block_runs.py` runs those that a random model can. Python is run by `test_pages.py`,
rows of data are read by their schemas in `test_data_schemas.py`.
"""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.recipes.table import PIPELINE
from hen_jax.runs.settings import settings
from hen_jax.verbs.pipeline.settings import plan_stages
from hen_jax.verbs.run.launch import load_config, settings_of

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *(ROOT / name for name in ("findings/README.md", "benchmarks/RESULTS.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(path for path in (ROOT / "hen_jax").rglob("*.md") if "configs" not in path.parts),
]
THEIRS = {"llama-cli", "llama-server", "lm_eval", "ollama", "docker"}
"""Programs of others, which these tests do not have."""

READERS_OWN = {"mine.py", "NAME", "NAME:VARIANT"}
"""What pages call a config of the reader's."""

DRAWN = re.compile("[─│▶▼◀]|^(?:hen_jax|text|configs)[/ ].* {2,}", re.MULTILINE)
"""A picture, or a list in columns."""


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    language: str
    text: str

    @property
    def first(self) -> str:
        return self.text.splitlines()[0]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for language, found in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield Block(page, language, found)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def holds_commands(block: Block) -> bool:
    words = {line.split()[0] for line in lines_of(block.text)}
    return block.language == "" and bool(words) and words <= {"hen", "make", "python", *THEIRS}


def kind(block: Block) -> str:
    """What a block is; raises `LookupError` where nobody has said."""
    if block.language in ("python", "json", "csv"):
        return block.language
    words = {line.split()[0] for line in lines_of(block.text)} if block.text.strip() else set()
    if holds_commands(block):
        return "commands"
    if words <= {"FROM", "ADAPTER"}:
        return "modelfile"
    if block.language == "" and DRAWN.search(block.text):
        return "drawing"
    if block.language == "" and any(
        block.page.name == page and block.first.startswith(first) for page, first in SHOWN
    ):
        return "shown"
    raise LookupError(
        f"{block.page}: of no known kind: {block.first!r}; say what it is in {__file__}"
    )


SHOWN = {
    ("concepts.md", " text   <system> Be brief."),
    ("concepts.md", "                 reply x    reply y"),
    ("experts.md", "y = x W + ((x [A_1 .. A_E]) * g)"),
    ("generate.md", '[{"role": "system", "content"'),
    ("generate.md", '{"id": "prompts.jsonl:1"'),
    ("quickstart.md", "[2/9 sft] trains sft"),
    ("synthesis.md", "patterns.toml: grief.weights: they sum to 1.1"),
}
"""What is only looked at, a table, an output, a formula: its page, and how it begins."""


def lines_of(text: str) -> list[str]:
    """The commands of a block, continued lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"\s#(?=\s).*|^#.*", "", line).strip() for line in joined.splitlines())
    return [line.removeprefix("$ ") for line in lines if line]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda one: f"{one.page.name}:{one.first[:40]}")
def test_a_block_is_of_a_known_kind(block):
    assert kind(block)


def test_a_block_that_nobody_knows_is_seen():
    with pytest.raises(LookupError, match="of no known kind"):
        kind(Block(ROOT / "README.md", "", "curl http://localhost\n"))
    with pytest.raises(LookupError):
        kind(Block(ROOT / "README.md", "toml", "a = 1\n"))
    assert len([one for one in BLOCKS if kind(one) == "commands"]) > 30


def without_fences(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def indented(text: str) -> list[str]:
    """The first lines of code that is indented in place of fenced; of lists no line is."""
    found, in_list, before = [], False, ""
    for line in text.splitlines():
        in_list = bool(re.match(r"\s*(?:[-*]|\d+\.) ", line)) or (in_list and line[:1] in ("", " "))
        if line.startswith("    ") and not before and not in_list:
            found.append(line.strip())
        before = line
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda one: one.name)
def test_code_is_fenced(page):
    """What is indented would escape these tests."""
    assert not indented(without_fences(page))


def test_indented_code_is_seen():
    assert indented("One.\n\n    two\n    three\n\nfour") == ["two"]
    assert not indented("- One.\n\n    two\n")


def commands() -> Iterator[tuple[Path, str]]:
    """Every command of the pages, and of the docstrings of configs, in blocks and in sentences."""
    for block in BLOCKS:
        if holds_commands(block):
            yield from ((block.page, line) for line in lines_of(block.text))
    for page in PAGES:
        flat = re.sub(r"\s*\n\s*", " ", without_fences(page))
        yield from ((page, one) for one in re.findall(r"`(hen [a-z][^`]* --[^`]*)`", flat))
    for path in sorted((ROOT / "configs").glob("*.py")):
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        indented = "\n".join(re.findall(r"^ {4}(.*)$", told, re.MULTILINE))
        yield from ((path, line) for line in lines_of(indented))


COMMANDS = list(dict.fromkeys(commands()))
OURS = [one for one in COMMANDS if one[1].startswith("hen ")]


@pytest.mark.parametrize(("page", "line"), OURS, ids=lambda one: getattr(one, "name", one))
def test_hen_takes_a_command_with_its_config_and_fields(page, line, tmp_path):
    chosen, rest = cli._parser().parse_known_args(shlex.split(line)[1:])
    strange = [word for word in rest if not word.startswith("--config.")]
    assert not strange
    assert chosen.takes_config or not rest
    if chosen.takes_config and chosen.config not in READERS_OWN | {"...", None}:
        read(chosen.config, rest, tmp_path)


def read(config: str, fields: list[str], workdir: Path) -> None:
    """Every setting of a command; raises `InputError` as `hen` does."""
    found = load_config(config, fields)
    asked = settings(settings_of(found.get("recipe")), found)
    if found.get("recipe") == PIPELINE:
        plan_stages(asked, workdir)


def test_a_field_that_is_not_there_is_seen(tmp_path):
    with pytest.raises(InputError, match="no such field"):
        read("sft:tiny", ["--config.epoch=1"], tmp_path)
    with pytest.raises(InputError, match="no such field"):
        read("pipeline:tiny", ["--config.sft.epoch=1"], tmp_path)
    assert len(OURS) > 120


TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("page", "line"),
    [one for one in COMMANDS if not one[1].startswith("hen ")],
    ids=lambda one: getattr(one, "name", one),
)
def test_another_command_names_what_is_there(page, line):
    program, *words = shlex.split(line)
    if program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
    elif program == "python":
        flags = {word for word in words if word.startswith("--")}
        assert flags <= flags_of(ROOT / words[0])
    else:
        assert program in THEIRS


def flags_of(script: Path) -> set[str]:
    """The flags that a script adds to its parser, and those of every duel."""
    found = ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    texts = {n.value for n in found if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    flags = {text for text in texts if text.startswith("--")}
    if script.parent.name == "benchmarks" and script.name != "duel.py":
        flags |= flags_of(script.with_name("duel.py"))
    return flags


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_is_to_be_installed_is_there():
    told = [
        (page, extra)
        for page in PAGES
        for found in re.findall(r"pip install [^`\n]*\[(\w+)\]", page.read_text(encoding="utf-8"))
        for extra in found.split(",")
    ]
    assert len(told) > 2
    assert not [one for one in told if one[1] not in EXTRAS]


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "json"], ids=lambda one: one.first[:40]
)
def test_json_is_json(block):
    whole = "\n".join(line for line in block.text.splitlines())
    try:
        json.loads(whole)
    except json.JSONDecodeError:
        for line in whole.splitlines():
            json.loads(line)

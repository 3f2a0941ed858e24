"""What the package imports is what it declares, so that a plain installation has it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]  # what only one verb needs
    own = [one for name, needed in extras.items() if name != "dev" for one in needed]
    return {normal(re.split(r"[<>=\[ ]", one)[0]) for one in (*project["dependencies"], *own)}


def imported() -> dict[str, Path]:
    """The modules of others that some file imports, at whatever depth in it."""
    found = {}
    for path in (ROOT / "hen_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {name.partition(".")[0]: path for name in names}
    return {
        name: path
        for name, path in found.items()
        if name not in sys.stdlib_module_names and name not in ("hen_jax", "__future__")
    }


def test_every_import_has_its_dependency():
    giving, ours = packages_distributions(), declared()
    lacking = {
        module: str(path)
        for module, path in imported().items()
        if not ours & set(map(normal, giving.get(module, [])))
    }
    assert lacking == {}, "name their packages in pyproject.toml"


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line}
    assert declared() <= pinned


OF_OURS = {
    "data/samples/": "dialogues, crossed items, sentences and ratings that we wrote: its README.md",
    "evaluation/rubrics/": "criteria of our judges",
    "measures/bench/": "hen-bench, CC0: its README.md",
    "measures/fairness/": "posts and cues of ours",
    "measures/instruments/": "scoring keys, without an item",
    "measures/people/page/": "the rating page",
    "measures/safety/": "signs, texts and quarrels of ours; numbers of help lines",
    "methods/lenses/": "our words for four schools of therapy",
    "serving/page/files/": "the chat page",
    "synthesis/materials/": "personas and situations of ours",
    "verbs/report/page/": "the report's page",
}
"""Whose the data in the package is. Texts, items and word lists of others the user brings."""


def test_no_data_of_others_is_packed():
    """Of everything that the wheel takes besides Python files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = ROOT / "hen_jax"
    patterns = project["tool"]["setuptools"]["package-data"]["hen_jax"]
    packed = {
        path.relative_to(package).as_posix()
        for pattern in patterns
        for path in package.glob(pattern)
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    strange = {one for one in packed if not one.startswith(tuple(OF_OURS))}
    assert not strange, "say in OF_OURS whose it is"
    unused = {one for one in OF_OURS if not any(path.startswith(one) for path in packed)}
    assert not unused
    for path in packed:  # no word list of `word<TAB>emotion<TAB>0 or 1`, no CSV of another project
        assert Path(path).suffix not in (".csv", ".tsv", ".txt"), path

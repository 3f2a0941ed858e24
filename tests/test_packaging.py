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

"""What benchmarks, studies and examples import of hen_jax is there, in functions too."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path for of in ("benchmarks", "studies", "examples") for path in ROOT.glob(f"{of}/*.py")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_name_it_imports_is_there(script):
    imports = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hen_jax")
    ]
    absent = [
        f"{node.module}.{name.name}"
        for node in imports
        for name in node.names
        if not _is_there(node.module or "", name.name)
    ]
    assert not absent


def _is_there(module: str, name: str) -> bool:
    found = import_module(module)
    is_package = hasattr(found, "__path__")
    return hasattr(found, name) or (is_package and find_spec(f"{module}.{name}") is not None)

"""The public surface: every name that docs/api.md lists is there, and the notebook runs on it."""

import importlib
import json
import re
import runpy
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

ROOT = Path(__file__).parents[1]
NAMES = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
SOURCE = ROOT / "examples" / "hen_in_a_notebook.py"


def named(name: str):
    """A module, or a name in one."""
    module, _, last = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    return vars(importlib.import_module(module))[last]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_says_what_it_is(name):
    found = named(name)
    if isinstance(found, FunctionType | ModuleType | type):  # and no alias or table
        assert len(found.__doc__ or "") > 20


def test_the_page_lists_names_once():
    assert len(NAMES) > 30
    assert len(set(NAMES)) == len(NAMES)
    with pytest.raises(KeyError):
        named("hen_jax.meta.inner.NoSuchLoop")


def test_the_notebook_is_the_file():
    text_of = runpy.run_path(str(ROOT / "examples" / "to_notebook.py"))["text_of"]
    written = SOURCE.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == text_of(SOURCE.read_text(encoding="utf-8"))


def test_each_cell_is_short_and_imports_what_is_public():
    cells = json.loads(SOURCE.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(one["source"]) for one in cells if one["cell_type"] == "code"]
    assert len(codes) >= 5
    for code in codes:
        lines = [
            line for line in code.splitlines() if line and not line.startswith(("import", "from"))
        ]
        assert len(lines) <= 10
        for module, names in re.findall(r"^from (hen_jax\S*) import (.+)$", code, re.MULTILINE):
            for name in names.split(", "):
                assert f"{module}.{name}" in NAMES or module in NAMES, (module, name)


@pytest.mark.slow  # compiles a step of each stage: a minute
def test_the_notebook_runs(capsys):
    found = runpy.run_path(str(SOURCE))
    assert float(found["metrics"]["loss"].value) == pytest.approx(0.0, abs=1.0)
    told = capsys.readouterr().out
    assert "loss after two steps" in told
    assert float(found["meta"].value) < 8.0
    assert found["brief"]((), "x" * 30, {}) == 1.0
    assert "torch" not in sys.modules

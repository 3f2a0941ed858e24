"""A public name at the top of a module stands in one module, but for those that a seam asks for."""

import ast
from collections import defaultdict
from pathlib import Path

import hen_jax

PACKAGE = Path(hen_jax.__file__).parent

OF_A_SEAM = {
    # A verb of `hen` and its flags; a model family; a suite of `hen evaluate`; a stage
    # (`hen_jax.runs.stage`) and what its files hold of it.
    *("add", "from_flags", "from_hf", "to_hf", "SUITE"),
    *("STAGE", "feed", "work", "load", "flops", "check", "check_model", "summary"),
}

AT_MOST = 4
"""Other names that stand in two modules today; the number may fall."""


def top_level(path: Path) -> set[str]:
    """The public names that a module gives a value to."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for one in targets if isinstance(one, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def test_a_name_means_one_thing():
    modules = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] != "configs":  # a config file has the same functions as any other
            for name in top_level(path):
                modules[name].append(str(inside))
    several = {name: held for name, held in modules.items() if len(held) > 1}
    others = {name: held for name, held in several.items() if name not in OF_A_SEAM}
    assert set(several) >= OF_A_SEAM, "a name that is in one module only needs no leave"
    assert len(others) <= AT_MOST, "\n".join(f"{name}: {held}" for name, held in others.items())

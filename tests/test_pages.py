"""Python in the README and the pages runs as it is pasted: a script, or fields of a config."""

import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "launch/README.md"]
BLOCKS = [
    pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{at}")
    for page in PAGES
    for at, block in enumerate(
        re.findall(
            r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    )
]


def test_the_readme_has_one():
    assert any(page.name == "README.md" for page, _ in (param.values for param in BLOCKS))


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_python_runs_as_pasted(page, block):
    given = {"config": ConfigDict()} if "\nconfig." in f"\n{block}" else {}
    exec(compile(block, str(page), "exec"), {"__name__": "pasted", **given})

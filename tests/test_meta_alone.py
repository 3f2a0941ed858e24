"""`hen_jax.meta` needs `core` and nothing else of ours: copied, the two folders work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hen_jax

PACKAGE = Path(hen_jax.__file__).parent
PAGE = Path(__file__).parents[1] / "docs/meta.md"


def test_copied_without_the_rest_it_gives_the_gradients_of_its_page(tmp_path):
    for part in ("meta", "core"):
        shutil.copytree(PACKAGE / part, tmp_path / "hen_jax" / part)
    (tmp_path / "hen_jax" / "__init__.py").touch()
    found = re.search(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    script = f"{found[1]}\nimport hen_jax\nprint(hen_jax.__path__)\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    weights, path = done.stdout.splitlines()
    right, wrong = map(float, weights.strip("[]").split())
    assert right < 0 < wrong
    assert str(tmp_path) in path

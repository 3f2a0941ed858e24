"""Writes an example as a notebook beside it: `python examples/to_notebook.py FILE.py`.

The cells of the Python file are those of the notebook; the file is what is edited and tested.
"""

import json
import re
import sys
from pathlib import Path


def notebook(source: str) -> dict:
    """The notebook of a file whose cells begin with `# %%` or `# %% [markdown]`."""
    cells = []
    for part in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        lines = body.strip("\n").splitlines(keepends=True)
        if "[markdown]" in kind:
            text = [re.sub(r"^# ?", "", line) for line in lines]
            cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
        else:
            empty = {"execution_count": None, "outputs": []}
            cells.append({"cell_type": "code", "metadata": {}, "source": lines, **empty})
    named = [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": named, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def text_of(source: str) -> str:
    """The notebook as it is written."""
    return json.dumps(notebook(source), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.with_suffix(".ipynb").write_text(text_of(file.read_text(encoding="utf-8")), "utf-8")

"""Every example asserts its own claim; here they are only run."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("meta_*.py"))


def test_there_are_examples():
    assert len(EXAMPLES) == 4


@pytest.mark.slow  # each trains for a while
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_holds(path):
    runpy.run_path(str(path))

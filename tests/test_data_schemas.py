"""The page about data is what the readers do: generated, and every example on it is read."""

from pathlib import Path

import pytest

from hen_jax.data import outside
from hen_jax.data.schema_pages import PAGES
from hen_jax.data.schemas import SCHEMAS
from hen_jax.verbs.data.checking import validate
from hen_jax.verbs.data.schemas_page import markdown

PAGE = Path(__file__).parents[1] / "docs" / "data.md"


def test_the_page_is_as_generated():
    assert markdown() == PAGE.read_text(encoding="utf-8"), "run `hen data schemas > docs/data.md`"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_example_of_each_schema_is_read_and_none_of_its_columns_is_ignored(
    schema, tmp_path, capsys
):
    page = PAGES[schema]
    file = tmp_path / f"x{page.suffix}"
    file.write_text(page.example, encoding="utf-8")
    found = validate(file, schema)
    assert found.records > 0
    assert not found.problems
    assert "not read" not in capsys.readouterr().out
    assert page.example.strip() in markdown()


def test_no_column_is_both_read_and_refused():
    for schema in ("messages", "sharegpt", "smilechat", "completion", "alpaca", "rating"):
        assert not PAGES[schema].names() & outside.IN_ROWS.keys()
    assert not PAGES["preference"].names() & outside.IN_PAIRS.keys()
    assert not {*outside.THOUGHTS, *outside.TRAINS} & outside.IN_TURNS.keys()

"""The tables of docs/robustness.md: a piece of a run takes the place of its own rows alone."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("robustness")
HEADER = ("files", "damaged", "opened by", "faults")


@pytest.fixture(scope="module")
def tables():
    sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location("robustness_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


def row(tables, *cells):
    return tables.Row(cells, [])


def test_rows_of_a_piece_join_those_of_the_page(tables, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x:begin -->\n<!-- x:end -->\nb\n")

    def put(*rows):
        told = tables.with_earlier(page, "x", HEADER, rows)
        tables.replace(page, "x", tables.table(HEADER, told))

    put(row(tables, "model", 5, "run", 0), row(tables, "model", 4, "export", 1))
    put(row(tables, "model", 7, "export", 0), row(tables, "record", 1, "run", 0))
    before, _, rest = page.read_text().partition("\n<!-- x:begin -->\n")
    text, _, after = rest.partition("\n<!-- x:end -->\n")
    assert (before, after) == ("a", "b\n")
    assert text.splitlines()[2:] == [
        "| model | 5 | run | 0 |",
        "| model | 7 | export | 0 |",
        "| record | 1 | run | 0 |",
        "| **all** | 13 |  | 0 |",
    ]
    assert tables.with_earlier(page, "x", ("other", *HEADER), []) == []


def test_a_share_is_no_name(tables, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- x:begin -->\n<!-- x:end -->")
    header = ("command", "kills", "alike")
    first = tables.with_earlier(page, "x", header, [row(tables, "run", 4, "2 of 3")])
    tables.replace(page, "x", tables.table(header, first))
    assert tables.with_earlier(page, "x", header, [row(tables, "run", 2, "1 of 1")]) == [
        ("run", 2, "1 of 1")
    ]


def test_some_of_the_parts_are_chosen_by_parts_of_their_names(tables):
    from robust_outcomes import is_wanted

    assert [is_wanted(name, "el,re") for name in ("model", "record", "cache")] == [
        True, True, False
    ]  # fmt: skip
    assert is_wanted("anything", "")

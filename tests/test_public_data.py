"""Files of other toolkits' shapes are read to the turns that they hold, or refused as TRL does."""

import public_data as files
import pytest

from hen_jax.data.schemas import SCHEMAS, check_records, pairs_of

TRL_COLUMNS = {"messages", "conversations", "prompt", "completion", "text", "chosen", "rejected"}
"""One of these must be there, or no trainer of TRL finds what it learns."""


def parsed(tmp_path, file):
    path = tmp_path / f"file{file.suffix}"
    path.write_text(file.text, encoding="utf-8")
    return check_records(path, file.schema, file.columns)


@pytest.mark.parametrize("name", files.READ)
def test_the_file_of_another_toolkit_is_read(tmp_path, name):
    file = files.READ[name]
    found = parsed(tmp_path, file)
    assert not found.problems
    (record,) = found.records
    messages = SCHEMAS[file.schema].document(record).conversation.messages
    assert [(one.role, one.content) for one in messages[-2:]] == [
        ("user", files.ASKED), ("assistant", files.TOLD)
    ]  # fmt: skip
    assert (messages[0].role == "system") == (files.SYSTEM in file.text)
    assert (files.EARLIER[0] in [one.content for one in messages]) == (
        files.EARLIER[0] in file.text
    )
    if files.WORSE in file.text:
        (pair,) = pairs_of(file.schema)(record)
        assert [one.content for one in pair.rejected] == [files.WORSE]


@pytest.mark.parametrize("name", files.REFUSED)
def test_a_file_in_which_trl_finds_no_column_is_refused_in_one_line(tmp_path, name):
    file, message = files.REFUSED[name]
    assert not any(row.keys() & TRL_COLUMNS for row in file.rows)
    (problem,) = parsed(tmp_path, file).problems
    assert message in str(problem)
    assert "\n" not in str(problem)


def test_of_forty_files_each_is_read_or_has_nothing_that_trl_reads():
    assert len(files.READ) + len(files.REFUSED) >= 40

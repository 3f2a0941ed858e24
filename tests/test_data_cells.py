"""A value says the same in every kind of file; what only looks like a value is named."""

import csv
import gzip
import json
import os
import zipfile

import openpyxl
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.pipeline import PipelineConfig
from hen_jax.data.rows import read_lines
from hen_jax.data.schemas import SCHEMAS, check_records, read_documents
from hen_jax.data.sense7 import check_sense7
from hen_jax.runs.sources import ColumnNames, Source, documents, prepared
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.verbs.data.stats import stats

ROWS = [
    {"prompt": "Hi_x000D_\nyou", "completion": "Hello", "label": "TRUE", "id": None},
    {"prompt": "[sighs] Hi", "completion": "Oh_x005F_x000D_", "label": "0", "id": "b"},
]
READ = [("Hi\nyou", "Hello", True, "1"), ("[sighs] Hi", "Oh_x000D_", False, "b")]


def write_json_lines(path):
    path.write_text("\n".join(map(json.dumps, ROWS)))


def write_gzipped(path):
    with gzip.open(path, "wt") as file:
        file.write("\n".join(map(json.dumps, ROWS)))


def write_array(path):
    path.write_text(json.dumps(ROWS, indent=1))


def write_wrapped(path):
    path.write_text(json.dumps({"version": 1, "data": ROWS}))


def write_csv(path, delimiter=","):
    with path.open("w", newline="") as file:
        out = csv.DictWriter(
            file, [" prompt", "completion ", "label", "id", ""], delimiter=delimiter
        )
        out.writeheader()
        for row in ROWS:
            said = {" prompt": row["prompt"], "completion ": row["completion"]}
            out.writerow(said | {"label": row["label"], "id": row["id"], "": "0"})


def write_semicolons(path):
    write_csv(path, ";")


def write_parquet(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def write_arrow(path):
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(path, table.schema) as out:
        out.write_table(table)


def write_workbook(path):
    book = openpyxl.Workbook()
    book.active.append(list(ROWS[0]))
    for row in ROWS:
        book.active.append([row["prompt"], row["completion"], row["label"] == "TRUE", row["id"]])
    book.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_json_lines), ("a.JSONL.GZ", write_gzipped), ("a.JSON", write_array),
        ("a.jsonl", write_array), ("a.json", write_wrapped), ("a.txt", write_wrapped),
        ("a.csv", write_csv), ("a.csv", write_semicolons), ("a.Parquet", write_parquet),
        ("a.arrow", write_arrow), ("a.xlsx", write_workbook),
    ],
)  # fmt: skip
def test_every_kind_of_file_says_the_same(tmp_path, name, write):
    write(tmp_path / name)
    parsed = SCHEMAS["label"].check(tmp_path / name)
    assert not parsed.problems
    said = [
        (*(m.content for m in one.conversation.messages), one.label, one.id)
        for one in parsed.records
    ]
    assert [(*one[:3], "1" if name in one[3] else one[3]) for one in said] == READ


def workbook_of_formulas(path):
    book = openpyxl.Workbook()
    for line in (["prompt", "completion", "note"], ["Hi", "=A2&\"!\"", "x"], ["Ho", "Yes", "=A9"],
                 ["He", "#N/A", None], ["Hu", "No", None]):  # fmt: skip
        book.active.append(line)
    book.active["B4"].data_type = "e"
    book.save(path)


def test_formulas_without_a_value_and_errors_are_named_by_cell(tmp_path):
    workbook_of_formulas(tmp_path / "x.xlsx")
    parsed = SCHEMAS["completion"].check(tmp_path / "x.xlsx")
    assert [record.conversation.messages[1].content for record in parsed.records] == ["No"]
    assert [(problem.line, problem.what.split(";")[0]) for problem in parsed.problems] == [
        (2, "completion: the formula in cell B2 has no saved value"),
        (3, "note: the formula in cell C3 has no saved value"),
        (4, "completion: cell B4 holds the error #N/A"),
    ]


def test_a_formula_with_a_saved_value_is_that_value_even_an_empty_one(tmp_path):
    workbook_of_formulas(tmp_path / "a.xlsx")
    part = "xl/worksheets/sheet1.xml"
    with (
        zipfile.ZipFile(tmp_path / "a.xlsx") as old,
        zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new,
    ):
        for one in old.namelist():
            text = old.read(one)
            if one == part:
                assert text.count(b"<v></v>") + text.count(b"<v />") + text.count(b"<v/>") == 2
                for empty in (b"<v></v>", b"<v />", b"<v/>"):
                    text = text.replace(empty, b"<v>Hi!</v>", 1).replace(empty, b"<v></v>")
                text = text.replace(b'<c r="B2">', b'<c r="B2" t="str">')
                text = text.replace(b'<c r="C3">', b'<c r="C3" t="str">')
            new.writestr(one, text)
    parsed = SCHEMAS["completion"].check(tmp_path / "b.xlsx")
    said = [record.conversation.messages[1].content for record in parsed.records]
    assert said == ["Hi!", "Yes", "No"]


def test_sense7_names_people_without_an_id_and_cells_without_a_value(tmp_path):
    book = openpyxl.load_workbook(samples.path("sense7/sense7.xlsx"))
    tasks, messages = ([cell.value for cell in book[name][1]] for name in ("Tasks", "Messages"))
    book["Tasks"].cell(2, tasks.index("PID") + 1).value = None
    book["Tasks"].cell(3, tasks.index("PID") + 1, " ")
    book["Tasks"].cell(4, tasks.index("TaskId") + 1).value = None
    book["Messages"].cell(2, messages.index("Retry") + 1, "no")
    book["Messages"].cell(40, messages.index("Affective") + 1, "=1+1")
    name = book["Messages"].cell(40, messages.index("TaskId") + 1).value
    book.save(tmp_path / "x.xlsx")
    said = [str(one).partition("x.xlsx:")[2] for one in check_sense7(tmp_path / "x.xlsx").problems]
    assert said[0] == "2:Messages.Retry: 'no'; allowed: true, false, 1 or 0"
    assert said[1].startswith("40:Messages.Affective: the formula in cell ")
    assert "2:Tasks.TaskId: T0001 has a bad message, so it is left out" in said
    assert "3:Tasks.PID: empty; allowed: a text that is not blank" in said
    assert "4:Tasks.TaskId: missing; give a text that is not blank" in said
    assert any(f"{name} has a bad message" in one for one in said)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".arrow"])
def test_a_column_that_stands_twice_is_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    names, values = ["prompt", "completion", "prompt "], ["Hi", "Hello", "Ho"]
    if suffix == ".csv":
        path.write_text(",".join(names) + "\n" + ",".join(values))
    elif suffix == ".xlsx":
        book = openpyxl.Workbook()
        book.active.append(names)
        book.active.append(values)
        book.save(path)
    else:
        table = pyarrow.table([[value] for value in values], names=names)
        with pyarrow.ipc.new_file(path, table.schema) as out:
            out.write_table(table)
    with pytest.raises(InputError, match="the column 'prompt' is given twice; keep one"):
        SCHEMAS["completion"].check(path)


def test_a_key_that_stands_twice_is_a_problem_of_its_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "Hi", "completion": "A", "prompt": "Ho"}\n'
                    '{"prompt": "Hi", "completion": "A"}')  # fmt: skip
    parsed = SCHEMAS["completion"].check(path)
    assert [p.what for p in parsed.problems] == [
        "column 1: prompt: given twice in one object; keep one"
    ]
    assert len(parsed.records) == 1


SAID = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (json.dumps(SAID, indent=2), [(1, SAID)]),
        (json.dumps(SAID, indent=2) + "\n\n" + json.dumps(SAID, indent=2), [(1, SAID), (14, SAID)]),
        (json.dumps({"data": [SAID, SAID]}, indent=1), [(3, SAID), (15, SAID)]),
        (json.dumps({"note": '"data": [', "data": [SAID]}), [(1, SAID)]),
        (json.dumps(SAID["messages"], indent=1), [(1, SAID)]),
        (json.dumps([SAID["messages"]] * 2), [(1, SAID), (1, SAID)]),
        (json.dumps(SAID["messages"]) + "\n" + json.dumps(SAID), [(1, SAID), (2, SAID)]),
        (json.dumps(SAID) + "\n" + json.dumps({"data": [SAID]}), [(1, SAID), (2, None)]),
        (json.dumps({"prompt": "a", "examples": [{}]}), [(1, {"prompt": "a", "examples": [{}]})]),
        ("", []), ("\n \n", []), ("[]", []), ("{", [(1, None)]), ("{}\n{", [(1, {}), (2, None)]),
    ],
)  # fmt: skip
def test_json_of_any_shape_is_rows(tmp_path, text, rows):
    (tmp_path / "x.jsonl").write_text(text)
    found = [(n.line, n.row) for n in read_lines(tmp_path / "x.jsonl")]
    if rows and rows[-1] == (2, None) and found[-1][1] == {"data": [SAID]}:
        rows = [rows[0], (2, {"data": [SAID]})]  # a row of JSON lines, which its schema refuses
    assert found == rows


def test_one_dialogue_as_a_file_is_one_conversation(tmp_path):
    turns = [
        {"role": "client", "content": "我最近总是睡不着。"},
        {"role": "counselor", "content": "从什么时候开始的呢？"},
    ]
    (tmp_path / "7.json").write_text(json.dumps(turns, ensure_ascii=False, indent=2))
    (found,) = read_documents(tmp_path / "7.json", "smilechat")
    assert [m.role for m in found.conversation.messages] == ["user", "assistant"]


def test_failed_conversations_of_esconv(tmp_path):
    names = ["Other", "Questions", "Direct Guidance", "Restatement", "Approval and Reassurance"]
    dialog = [{"speaker": "speaker", "annotation": {}, "content": "I sleep all day."}]
    dialog += [
        {"speaker": "listener", "annotation": {"strategy": name}, "content": "So?"}
        for name in names
    ]
    row = {"emotion_type": "depression", "problem_type": "ongoing depression", "dialog": dialog}
    (tmp_path / "x.json").write_text(json.dumps([row | {"situation": "I sleep."}]))
    (record,) = check_records(tmp_path / "x.json", "esconv").whole(tmp_path)
    assert record.strategies == (None, "Others", "Question", "Providing Suggestions",
                                 "Restatement or Paraphrasing",
                                 "Affirmation and Reassurance")  # fmt: skip


def folder(tmp_path, **files):
    place = tmp_path / "set"
    place.mkdir()
    (tmp_path / "secret.jsonl").write_text(json.dumps(SAID))
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


@pytest.mark.parametrize(
    "pattern",
    ["../secret.jsonl", "{tmp}/secret.jsonl", "https://host/x.jsonl", "sub/../../secret.jsonl",
     "hf://datasets/x/y.jsonl", "~/x.jsonl", "..\\\\secret.jsonl"],
)  # fmt: skip
def test_a_readme_cannot_make_a_folder_read_other_files(tmp_path, pattern):
    listed = pattern.replace("{tmp}", str(tmp_path))
    head = f'---\nconfigs:\n- config_name: default\n  data_files: "{listed}"\n---\n'
    place = folder(tmp_path, README__md=head, a__jsonl=json.dumps(SAID))
    with pytest.raises(InputError, match="is not in this folder; a data folder reads only its own"):
        read_documents(place, "messages")


def test_links_out_of_a_folder_and_lists_that_lead_out_are_refused(tmp_path):
    place = folder(tmp_path, a__jsonl=json.dumps(SAID))
    assert len(read_documents(place, "messages")) == 1
    (place / "b.jsonl").symlink_to(place / "a.jsonl")
    assert len(read_documents(place, "messages")) == 2
    (place / "c.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(InputError, match=r"c\.jsonl: a link out of the data folder"):
        read_documents(place, "messages")
    (place / "c.jsonl").unlink()
    (place / "sub").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InputError, match="sub: a link out of the data folder"):
        read_documents(place, "messages")
    for name in ("../secret.jsonl", str(tmp_path / "secret.jsonl")):
        (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(InputError, match="which is not in this folder"):
            read_documents(place, "messages")
    (place / "dataset_dict.json").write_text(json.dumps({"splits": [".."]}))
    with pytest.raises(InputError, match="which is not in this folder"):
        read_documents(place, "messages")


def test_a_folder_is_read_as_its_readme_lists_it(tmp_path):
    other = SAID | {"id": "other"}
    listed = "[{split: train, path: 'a.*'}]"
    head = f"---\nconfigs:\n- {{config_name: x, data_files: {listed}}}\n---\n# Set\n"
    place = folder(tmp_path, README__md=head, a__jsonl=json.dumps(SAID), b__jsonl=json.dumps(other))
    assert [one.id for one in read_documents(place, "messages")] == ["set:1"]
    (place / "README.md").write_text("# No head\n")
    assert [one.id for one in read_documents(place, "messages")] == ["set:1", "other"]
    (place / "README.md").write_text("---\nconfigs:\n- config_name: a\n- config_name: b\n---\n")
    with pytest.raises(InputError, match=r"several sets \(a, b\)"):
        read_documents(place, "messages")


def test_a_set_that_datasets_saved_in_parts_is_read_whole(tmp_path):
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list([SAID | {"id": "y"}, SAID | {"id": "x"}])
    datasets.DatasetDict({"train": part, "test": part.select([0])}).save_to_disk(tmp_path / "saved")
    parsed = SCHEMAS["messages"].check(tmp_path / "saved")
    assert [one.id for one in parsed.records] == ["y", "x"]
    assert [(one.line, one.what[:25]) for one in parsed.problems] == [
        (3, "id: 'y' is also on line 1")
    ]
    assert os.environ.get("HF_DATASETS_OFFLINE") is None  # nothing is set on the way


def test_columns_of_another_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("question;answer;source\nHi;Yes;web\n")
    names = ColumnNames(prompt="question", completion="answer")
    splits = documents((Source("completion", str(path), columns=names),))
    (found,) = [*splits.train, *splits.valid, *splits.test]
    assert [m.content for m in found.conversation.messages] == ["Hi", "Yes"]
    (problem,) = check_records(path, "completion", {"prompt": "qestion"}).problems
    assert problem.what == "qestion: missing; columns names what this row does not have"
    (problem,) = check_records(path, "completion", {"source": "question"}).problems
    assert problem.what.startswith("source: in the file too, and columns calls 'question' so")
    with pytest.raises(InputError, match="its files have fixed names"):
        check_records(samples.path("sense7/sense7.xlsx"), "sense7", {"task": "x"})


def test_an_empty_part_is_named_with_the_group_that_holds_the_data(tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([json.dumps(SAID)] * 20))
    tokenizer = tiny_tokenizer()
    words, config = ChatTokenizer(tokenizer, detect_format(tokenizer)), PipelineConfig(cache=False)
    with pytest.raises(
        InputError,
        match="the valid part is empty: 20 records in 1 groups, the largest 'Hi' with 20; ",
    ):
        prepared((Source("messages", str(path)),), config, words)
    stats(path, "messages")
    assert "the valid part is empty: 20 records in 1 groups" in capsys.readouterr().out
    short = PipelineConfig(cache=False, row_length=2)
    with pytest.raises(InputError, match=r"its documents \(20\) are all longer than data.row_leng"):
        prepared((Source("messages", str(path)),), short, words)

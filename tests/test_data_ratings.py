"""People's ratings and choices: every layout read, every fault counted, sheets out and back."""

import csv
import json
from pathlib import Path

import openpyxl
import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.data.rating_sheets import RatingItem, lay_out_sheets, read_key
from hen_jax.data.schemas import read_pairs, read_records
from hen_jax.data.votes import VoteReading, read_votes, require_good
from hen_jax.empathy.scales import Scale


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(path: Path, rows) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def said(tmp_path):
    """Four conversations to be rated."""
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows = [{"id": name, "group": f"g-{name}", "messages": messages} for name in "1234"]
    return lines(tmp_path / "said.jsonl", rows)


@pytest.fixture
def pairs(tmp_path):
    """Four pairs to be chosen from, with a reply that says which it is."""
    rows = [
        {"id": name, "prompt": f"Ask {name}.", "chosen": f"good {name}", "rejected": f"poor {name}"}
        for name in "1234"
    ]
    return lines(tmp_path / "pairs.jsonl", rows)


def ratings(*words: str, kind: str = "ratings") -> int:
    return cli.main(["data", "ratings", f"--kind={kind}", *words])


LONG = "item,annotator,rating\n1,ann,4\n1,bo,very good\n2,ann,2\n2,bo,\n3,ann,unknown\n3,bo,3.5\n"


def test_all_layouts_say_the_same(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in (["item", "ann", "bo"], [1, 4, "very good"], [2, 2.0, None], [3, "unknown", 3.5]):
        sheet.append(row)
    book.save(tmp_path / "wide.xlsx")
    rows = [
        {"id": 1, "worker": "ann", "score": 4},
        {"id": "1", "worker": "bo", "score": "Very Good "},
        {"id": 2.0, "worker": "ann", "score": "2"},
        {"id": 2, "worker": "bo"},
        {"id": 3, "worker": "ann", "score": None},
        {"id": 3, "worker": "bo", "score": 3.5},
    ]
    named = {"annotator": "worker", "rating": "score"}
    found = [
        read_votes([write(tmp_path / "long.csv", LONG)], VoteReading("ratings")),
        read_votes([tmp_path / "wide.xlsx"], VoteReading("ratings")),
        read_votes([lines(tmp_path / "long.jsonl", rows)], VoteReading("ratings", columns=named)),
    ]
    expected = {("1", "ann", 4), ("1", "bo", 5), ("2", "ann", 2), ("3", "bo", 3.5)}
    for cast in found:
        assert not cast.faults
        assert {vote[:3] for vote in cast.votes} == expected
        assert cast.unsaid == 2


def test_choices_in_the_words_people_use(tmp_path):
    text = "item,a,b\n1,A,left\n2,1.0,=\n3,both_bad,Both  bad\n4,B,\n"
    cast = read_votes([write(tmp_path / "wide.csv", text)], VoteReading("choices"))
    assert [vote[1:3] for vote in cast.votes] == [
        ("a", "first"), ("b", "first"), ("a", "first"), ("b", "tie"),
        ("a", "both_bad"), ("b", "both_bad"), ("a", "second"),
    ]  # fmt: skip


def test_one_file_of_one_annotator_is_called_by_its_name(tmp_path):
    file = write(tmp_path / "kim.csv", "item,rating,comment\n1,7,hm\n2,,only this\n")
    cast = read_votes([file], VoteReading("ratings", Scale("rating", 0, 10)))
    assert [vote[:3] for vote in cast.votes] == [("1", "kim", 7.0)]
    assert cast.unsaid == 1


BAD = (
    "item,annotator,rating\n1,ann,6\n1,bo,0\n2,ann,maybe\n2,bo,3\n2,bo,3\n2,bo,4\n9,ann,2\n,ann,2\n"
    "3,ann,true\n"
)


def test_every_fault_is_counted_in_one_line_and_nothing_is_written(tmp_path, said, capsys):
    file = write(tmp_path / "bad.csv", BAD)
    out = tmp_path / "out"
    asked = [str(file), f"--items={said}", "--schema=messages", f"--out={out}"]
    assert ratings(*asked) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for part in (
        "8 faults in 9 lines, 1 votes are good",
        f"4 off the scale ({file}:2:rating: '6'",
        f"2 given twice ({file}:6: 'bo' on item '2' says 3.0 again, as in {file}:5)",
        f"1 of unknown items ({file}:8:item: '9' is not in the items)",
        f"1 without item or annotator ({file}:9:item: missing",
    ):
        assert part in told
    assert not out.exists()
    assert file.read_text() == BAD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,ann,4\n2,ann,3\n", "one annotator only ('ann', 2 items)"),
        (
            "1,ann,4\n1,bo,3\n2,cy,3\n",
            "1 of 3 annotators share no item with anyone ('cy'; 1 of 3 votes)",
        ),
    ],
)
def test_votes_that_tell_no_agreement_are_taken_if_asked(tmp_path, said, capsys, text, message):
    file, out = write(tmp_path / "few.csv", f"item,annotator,rating\n{text}"), tmp_path / "out"
    asked = [str(file), f"--items={said}", "--schema=messages", f"--out={out}"]
    assert ratings(*asked) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
    assert ratings(*asked, "--no-agreement") == 0
    assert json.loads((out / "agreement.json").read_text())["agreement"] is None
    assert len(read_records(out / "ratings.jsonl", "rating")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,annotator,rating\n1,ann,\n", "no vote in 1 lines (1 empty)"),
        ("item\n1\n", "no column annotator or rating; it has item"),
    ],
)
def test_files_without_votes(tmp_path, said, capsys, text, message):
    file, out = write(tmp_path / "few.csv", text), tmp_path / "out"
    assert ratings(str(file), f"--items={said}", "--schema=messages", f"--out={out}") == 2
    assert message in capsys.readouterr().err


def test_ratings_become_training_data_with_their_agreement(tmp_path, said, capsys):
    file = write(tmp_path / "long.csv", "item,annotator,rating\n1,x,9\n1,y,7\n2,x,0\n2,y,2\n")
    out = tmp_path / "out"
    asked = [
        str(file),
        f"--items={said}",
        "--schema=messages",
        f"--out={out}",
        "--scale",
        "0",
        "10",
    ]
    assert ratings(*asked) == 0
    found = read_records(out / "ratings.jsonl", "rating")
    assert [(one.id, one.group, round(one.rating, 4)) for one in found] == [
        ("1", "g-1", 0.8), ("2", "g-2", 0.1)
    ]  # fmt: skip
    report = json.loads((out / "agreement.json").read_text())
    assert report["items_without_a_vote"] == 2
    assert set(report["agreement"]["alpha"]) == {"ordinal", "nominal", "interval"}
    assert report["agreement"]["kappa"]["pairs"][0]["items"] == 2
    assert "2 items from 4 votes of 2 annotators" in capsys.readouterr().out
    row = json.loads((out / "ratings.jsonl").read_text().splitlines()[0])
    assert (row["annotators"], row["spread"]) == (2, 0.1)


CHOICES = (
    "item,ann,bo,cy,di\n1,a,a,a,b\n2,b,b,tie,both bad\n3,both bad,both bad,neither,a\n4,a,tie,a,a\n"
)


@pytest.mark.parametrize("weights", ["equal", "dawid_skene", "bradley_terry"])
def test_choices_become_soft_pairs(tmp_path, pairs, weights):
    file, out = write(tmp_path / "wide.csv", CHOICES), tmp_path / "out"
    asked = [str(file), f"--items={pairs}", "--schema=preference", f"--out={out}"]
    assert ratings(*asked, f"--weights={weights}", kind="choices") == 0
    rows = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    better = [row["chosen"][0]["content"] for row in rows]
    assert better[:2] == ["good 1", "poor 2"]  # the second reply was preferred: it comes first
    assert better[3] == "good 4"
    report = json.loads((out / "agreement.json").read_text())
    assert report["weights"] == weights
    if weights == "equal":
        assert [(row["share"], row["tie"], row["both_bad"]) for row in rows] == [
            (0.75, 0.0, 0.0), (0.5, 0.5, 0.25), (0.25, 0.75, 0.75), (0.75, 0.25, 0.0)
        ]  # fmt: skip
        assert report["mostly_both_bad"] == 1
    else:
        assert all(0.5 < one["reliability"] < 1 for one in report["annotators"].values())
    for row in rows:
        assert 0 <= row["share"] <= 1
        assert row["share"] + row["tie"] <= 1
    read = read_pairs(out / "pairs.jsonl", "preference")
    assert [(pair.id, pair.share, pair.tie) for pair in read] == [
        (row["id"], pytest.approx(row["share"]), pytest.approx(row["tie"])) for row in rows
    ]


def test_ratings_are_not_weighed_by_bradley_and_terry(tmp_path, said, capsys):
    file = write(tmp_path / "long.csv", LONG)
    asked = [str(file), f"--items={said}", "--schema=messages", f"--out={tmp_path / 'out'}"]
    assert ratings(*asked, "--weights=bradley_terry") == 2
    assert "is of choices" in capsys.readouterr().err


def test_sheets_are_balanced_and_the_same_again():
    items = [RatingItem(str(at), "p", ("x", "y")) for at in range(9)]
    sheets = lay_out_sheets(items, 4, seed=1)
    assert sheets == lay_out_sheets(items, 4, seed=1)
    assert sheets != lay_out_sheets(items, 4, seed=2)
    for rows in sheets:
        assert {row.item.id for row in rows} == {item.id for item in items}
        assert sum(row.exchanged for row in rows) in (4, 5)
    for item in items:
        assert sum(row.exchanged for rows in sheets for row in rows if row.item == item) == 2
    orders = {tuple(row.item.id for row in rows) for rows in sheets}
    firsts = {rows[0].item.id for rows in sheets}
    assert len(orders) == len(firsts) == 4
    blind = [row.blind for rows in sheets for row in rows]
    assert len(set(blind)) == 36


def fill(sheet: Path, answer) -> None:
    """What an annotator does: a value in each line, and the file saved under the same name."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["choice"] = answer(row)
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_sheets_come_back_as_votes_on_the_right_replies(tmp_path, pairs, capsys):
    sheets, key = tmp_path / "sheets", tmp_path / "apart" / "key.jsonl"
    export = [f"--export-items={pairs}", "--schema=preference", f"--out={sheets}", "--sheets=3"]
    assert ratings(*export, f"--key={sheets / 'key.jsonl'}", kind="choices") == 2
    assert "a place that annotators do not see" in capsys.readouterr().err
    assert ratings(*export, f"--key={key}", kind="choices") == 0
    files = sorted(sheets.glob("*.csv"))
    text = "".join(file.read_text(encoding="utf-8-sig") for file in files)
    assert "chosen" not in text
    assert len(read_key(key)) == 12
    for file in files:
        fill(file, lambda row: "a" if row["a"].startswith("good") else "b")
    out = tmp_path / "out"
    names = [*map(str, files), f"--items={pairs}", "--schema=preference", f"--out={out}"]
    assert ratings(*names, kind="choices") == 2  # blind names mean nothing without the key
    assert "12 of unknown items" in capsys.readouterr().err
    assert ratings(*names, f"--key={key}", kind="choices") == 0
    rows = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    assert {row["share"] for row in rows} == {1.0}
    assert {row["chosen"][0]["content"] for row in rows} == {f"good {name}" for name in "1234"}
    people = json.loads((out / "agreement.json").read_text())["annotators"]
    assert people == {f"sheet-0{number}": {"votes": 4} for number in (1, 2, 3)}


def test_a_key_is_a_key(tmp_path):
    good = {"id": "x", "item": "1", "sheet": "s", "exchanged": False}
    with pytest.raises(InputError, match=r"key\.jsonl:2:id: 'x' is given twice"):
        read_key(lines(tmp_path / "key.jsonl", [good, good]))
    with pytest.raises(InputError, match=r"other\.jsonl:1:item: missing.*give the key"):
        read_key(lines(tmp_path / "other.jsonl", [{"id": "x"}]))


def test_flags_that_do_not_go_together(tmp_path, pairs, capsys):
    assert ratings("--schema=preference", f"--out={tmp_path / 'o'}") == 2
    assert "give files of votes and --items" in capsys.readouterr().err
    export = [f"--export-items={pairs}", "--schema=preference", f"--out={tmp_path / 'o'}"]
    assert ratings(*export, kind="choices") == 2
    assert "--export-items takes --key FILE" in capsys.readouterr().err


def test_unreadable_lines_are_faults_too(tmp_path):
    file = write(
        tmp_path / "bad.jsonl", '{"item": 1, "annotator": "a", "rating": 3}\n{"item": 2,\n'
    )
    cast = read_votes([file], VoteReading("ratings"))
    with pytest.raises(InputError, match=r"1 unreadable \(.*bad\.jsonl:2:column"):
        require_good(cast)

"""The runner of all benchmarks: run, kept, skipped, tabled; no figure of the README by hand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_blocks import flags_of

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))  # scripts there import each other

import bench  # noqa: E402
import bench_list  # noqa: E402
import bench_pages  # noqa: E402

TOY = """
import duel, pathlib, sys

def ours(task):
    return {"seconds": 1.0, "amount": 6, "peak_bytes": 10**9, "cpu_seconds": 1.0}

def theirs(task):
    return {"seconds": 2.0, "amount": 3, "peak_bytes": 4 * 10**9, "cpu_seconds": 2.0}

def compare():
    parser = duel.arguments("A toy.", rounds=3)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    with pathlib.Path("ran").open("a") as file:
        file.write("once ")
    if options.model == "bad":
        raise SystemExit(3)
    sides = {"ours": duel.Side("ours", {}), "theirs": duel.Side("theirs", {}, options.peer_python)}
    for rows in (32, 8):
        runs = duel.meet(sides, 1 if options.model == "quick" else options.rounds)
        out = options.out.with_stem(f"{options.out.stem}-{rows}")
        duel.report(runs, "theirs", out, show=("amount",))

if __name__ == "__main__":
    duel.main(compare, ours, theirs)
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """`measure(*flags)` with two toys for benchmarks; its folder."""
    (tmp_path / "duel.py").write_text((BENCHMARKS / "duel.py").read_text("utf-8"), "utf-8")
    (tmp_path / "toy.py").write_text(TOY, "utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(f"Before.\n{bench_pages.BEGIN}\nold\n{bench_pages.END}\nAfter.\n", "utf-8")
    command = f"{tmp_path / 'toy.py'} --peer-python {sys.executable} --model {{model}}"
    entries = {
        "toy": bench_list.Benchmark("toys", "bricks", command, bench_list.verdict),
        "brought": bench_list.Benchmark("maps", "globes", "x.py {maxtext}", bench_list.verdict),
    }
    for module in (bench, bench_pages):
        monkeypatch.setattr(module, "BENCHMARKS", entries)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "code_of", lambda root: "abc")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    return tmp_path, ["--results", str(results), "--readme", str(readme)]


def test_figures_are_kept_tabled_and_not_measured_twice(toys, capsys):
    folder, where = toys
    assert bench.main(["--model", "good", *where]) == 0
    kept = json.loads((folder / "benchmarks/results/toy.json").read_text("utf-8"))
    assert kept["ratio"] == "4.00x, 4.00x"  # of 8 rows, then of 32: 6 a second against 1.5
    assert kept["spread"] == "4.00 to 4.00, 4.00 to 4.00"
    assert kept["memory"] == "0.25x, 0.25x"
    assert [len(one["runs"]["ours"]) for one in kept["reports"]] == [3, 3]
    assert kept["machine"]["cores"] > 0
    assert kept["versions"]["python"]
    assert not list((folder / "benchmarks/results/running").iterdir())
    readme = (folder / "README.md").read_text("utf-8")
    assert "| toys | bricks | 4.00x, 4.00x | 0.25x, 0.25x | `toy` |" in readme
    assert "old" not in readme
    assert readme.startswith("Before.")
    assert readme.endswith("After.\n")
    told = (folder / "benchmarks/RESULTS.md").read_text("utf-8")
    assert "| ours | 1.000 | 4.00x (4.00 to 4.00) | 1.00 |" in told
    assert "Of maps; against globes.\n\nNot measured yet." in told
    assert "brought: left out; give --maxtext-python" in capsys.readouterr().out
    assert bench.main(["--model", "good", *where]) == 0
    assert (folder / "ran").read_text() == "once "
    assert bench.main(["--model", "quick", "--only", "toy", "--again", *where]) == 0
    assert (folder / "ran").read_text() == "once once "


def test_a_benchmark_of_other_code_is_measured_again(toys, monkeypatch):
    folder, where = toys
    bench.main(["--model", "quick", *where])
    monkeypatch.setattr(bench, "code_of", lambda root: "")  # changed, and not known how
    bench.main(["--model", "quick", *where])
    bench.main(["--model", "quick", *where])
    assert (folder / "ran").read_text() == "once " * 3


def test_code_is_known_by_its_tree_unless_it_is_changed(tmp_path):
    (tmp_path / "hen_jax").mkdir()
    (tmp_path / "hen_jax" / "a.py").write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert len(bench.code_of(tmp_path)) == 40
    (tmp_path / "other").write_text("2")
    assert bench.code_of(tmp_path)
    (tmp_path / "hen_jax" / "a.py").write_text("2")
    assert bench.code_of(tmp_path) == ""
    assert bench.code_of(tmp_path / "hen_jax" / "nowhere") == ""


def test_a_benchmark_that_fails_is_told_and_leaves_what_was_there(toys, capsys):
    folder, where = toys
    bench.main(["--model", "quick", *where])
    before = (folder / "benchmarks/results/toy.json").read_bytes()
    assert bench.main(["--model", "bad", "--again", *where]) == 1
    assert "failed: toy" in capsys.readouterr().err
    assert (folder / "benchmarks/results/toy.json").read_bytes() == before


def test_the_page_and_the_readme_say_what_the_results_say():
    results = bench_pages.results_in(BENCHMARKS / "results")
    assert len(results) > 10
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == bench_pages.with_table(readme, results), "make bench BENCH=--tables"
    written = (BENCHMARKS / "RESULTS.md").read_text("utf-8")
    assert written == bench_pages.page(results), "make bench BENCH=--tables"
    kept = {path.stem for path in (BENCHMARKS / "results").glob("*.json")}
    assert kept <= bench_list.BENCHMARKS.keys()


@pytest.mark.parametrize("name", list(bench_list.BENCHMARKS))
def test_a_benchmark_has_a_script_that_takes_its_flags_and_three_rounds(name):
    script, *words = bench_list.BENCHMARKS[name].command.split()
    assert {word for word in words if word.startswith("--")} <= flags_of(BENCHMARKS / script)
    assert set(re.findall(r"\{(\w+)\}", " ".join(words))) <= bench_list.FILLED.keys()
    text = (BENCHMARKS / script).read_text("utf-8")
    default = re.search(r"duel\.arguments\(__doc__, rounds=(\d)", text)
    asked = re.search(r"--rounds (\d)", " ".join(words)) or default
    assert name == "plan" or asked is None or int(asked.group(1)) >= 3


def test_every_side_by_side_script_is_in_the_list():
    listed = {one.command.split()[0] for one in bench_list.BENCHMARKS.values()}
    reporting = {
        path.name
        for path in BENCHMARKS.glob("*.py")
        if "duel.report(" in path.read_text("utf-8") and not path.stem.startswith(("bench", "duel"))
    }
    assert reporting <= listed

"""The runner of the benchmarks: sides in turn, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

TOY = """
import os, signal
import duel

def ours(task):
    print("a library's noise")
    seconds = [9.0, task["seconds"], 0.0]
    return {"seconds": seconds, "amount": 6, "pid": os.getpid(), "cpu_seconds": 1}

def theirs(task):
    return {"seconds": 2.0, "amount": 3, "pid": os.getpid(), "peak_bytes": 10**12}

def killed(task):
    os.kill(os.getpid(), signal.SIGKILL)

def compare():
    options = duel.arguments("A toy. More.", rounds=2).parse_args()
    sides = {
        "ours": duel.Side("ours", {"seconds": 1.0}),
        "theirs": duel.Side("theirs", {}, options.peer_python),
        "too large": duel.Side("killed", {}),
    }
    duel.report(duel.meet(sides, options.rounds, may_not_fit=True), "theirs", options.out, ["pid"])

if __name__ == "__main__":
    duel.main(compare, ours, theirs, killed)
"""  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """The report of a toy benchmark, and what it printed."""
    folder = tmp_path_factory.mktemp("duel")
    (folder / "duel.py").write_text((BENCHMARKS / "duel.py").read_text("utf-8"), "utf-8")
    (folder / "toy.py").write_text(TOY, "utf-8")
    done = subprocess.run(
        [sys.executable, "toy.py", "--peer-python", sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads((folder / "toy.json").read_text("utf-8")), done.stdout


def test_speed_is_work_per_median_second_and_the_killed_side_is_told(toy):
    report, said = toy
    assert report["rows"]["ours"]["speed"] == [4.0, 4.0, 4.0]  # 6 a second against 3 in two
    assert report["rows"]["ours"]["speed_by_cpu_seconds"] is None  # theirs did not tell
    assert report["did_not_fit"] == ["too large"]
    assert "4.00x (4.00 to 4.00)" in said
    assert "noise" not in said


def test_every_round_is_a_fresh_process_with_its_own_peak(toy):
    report, _ = toy
    runs = report["runs"]["ours"] + report["runs"]["theirs"]
    assert len({run["pid"] for run in runs}) == 4
    assert 2**20 < report["rows"]["ours"]["peak_bytes"] < 2**30
    assert report["rows"]["theirs"]["peak_bytes"] == 10**12  # a side may tell its own


def test_a_ratio_spans_its_rounds(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import duel

    assert duel.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == (4.0 / 3.0, 1.0, 3.0)
    runs = {"ours, a": [{"seconds": 2.0}], "ours, b": [{"seconds": 1.0}], "ours, c": []}
    assert duel.fastest(runs, "ours") == "ours, b"

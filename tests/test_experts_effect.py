"""The study of experts: what is done when, in units that get on, and the report from its files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import experts_effect as study

FIRST = ["run measure", "export measure", "run control", "export control"]


@pytest.fixture
def place(tmp_path):
    return study.Place("models/none", tmp_path / "out", tmp_path / "results", False)


def names(place, arms=study.ARMS, seeds=2):
    return list(dict.fromkeys(task.name for task in study.tasks(place, arms, seeds)))


def test_measures_come_first_and_an_arm_that_is_there_needs_nothing(place):
    todo = names(place)
    assert todo[:4] == FIRST
    assert todo[4:6] == ["arm baseline", "arm system prompt"]
    assert todo.index("run experts-0") < todo.index("arm wrong expert, seed 0")
    assert todo.index("arm shared adapter, seed 0") < todo.index("run experts-1")
    place.results.mkdir()
    for key in ("baseline", "system prompt", "adapter, seed 0", "wrong expert, seed 0"):
        study.result_of(place, key).write_text("{}")
    left = names(place, seeds=1)
    assert left == [*FIRST, "run shared-0", "export shared-0", "arm shared adapter, seed 0"]
    study.result_of(place, "shared adapter, seed 0").write_text("{}")
    assert names(place, seeds=1) == []


def test_dpo_goes_on_from_the_experts_of_its_seed(place):
    todo = names(place, study.ALSO, 1)
    assert todo.index("run experts-0") < todo.index("run dpo-0")
    [run] = [t for t in study.tasks(place, study.ALSO, 1) if t.name == "run dpo-0"]
    assert f"--config.start={place.run('experts-0')}" in run.words


def unit(tmp_path, code):
    journal = tmp_path / "journal"
    return study.Task(
        "it", ["-c", code.format(journal=journal)], tmp_path / "x", journals=[journal]
    )


def test_a_unit_is_stopped_only_once_something_is_kept(tmp_path):
    """The first would run for a minute; the second ends by itself before it keeps anything."""
    write = "open('{journal}', 'a').write('x'); "
    study.do(unit(tmp_path, f"import time; time.sleep(0.3); {write}time.sleep(60)"), 0.1)
    assert (tmp_path / "journal").read_text() == "x"
    study.do(unit(tmp_path, "import time; time.sleep(1.5); open('{journal}y', 'w')"), 0.1)
    assert (tmp_path / "journaly").exists()


def test_a_failure_ends_the_study(tmp_path):
    with pytest.raises(SystemExit, match="it ended with exit code 3"):
        study.do(unit(tmp_path, "raise SystemExit(3)"), 60)


def arm(key, levels, chosen, **changes):
    table = np.asarray(levels, float)[:, None].repeat(3, axis=1)
    return {
        "missing": 0,
        "crossed": {"level": {"value": 0.8, "low": 0.7, "high": 0.9, "groups": 20}},
        "conversations": [f"c{n}" for n in range(len(table))],
        "contexts": ["distress", "writing"] * (len(table) // 2),
        "words_a_reply": 10.0,
        "levels": table.tolist(),
        "alone": (table / 2).tolist(),
        "chosen": np.full(table.shape, chosen).tolist(),
        **changes,
    }


def test_the_report_is_of_the_mean_over_seeds_and_of_each(place):
    """The base is at .2 and .8 is wanted; seeds at .5 and .7 close a half and five sixths of it."""
    place.results.mkdir()
    some = np.linspace(-0.05, 0.05, 6)
    levels = {"baseline": 0.2, "system prompt": 0.3, "adapter, seed 0": 0.5, "adapter, seed 1": 0.7}
    for name in ("wrong expert", "shared adapter"):
        levels |= {f"{name}, seed {n}": 0.35 for n in (0, 1)}
    for key, level in levels.items():
        found = arm(key, level + some, 0.8)
        study.result_of(place, key).write_text(json.dumps(found))
    text = study.report(place, study.ARMS, 2)
    assert "Crossed accuracies: level 0.80 (0.70 to 0.90)" in text
    results = json.loads((place.results / "results.json").read_text())
    by_seed = {key: one["value"] for key, one in results["by_seed"].items()}
    assert by_seed["adapter, seed 0"] == pytest.approx(50, abs=0.01)
    assert by_seed["adapter, seed 1"] == pytest.approx(500 / 6, abs=0.01)
    assert by_seed["system prompt"] == pytest.approx(100 / 6, abs=0.01)
    assert results["measure"]["gaps"]["adapter"]["reduction"]["value"] == pytest.approx(
        400 / 6, abs=0.01
    )
    other = arm("", 0.5 + some, 0.7)
    study.result_of(place, "adapter, seed 1").write_text(json.dumps(other))
    with pytest.raises(SystemExit, match="another chosen"):
        study.report(place, study.ARMS, 2)

"""Files of another shape: told in a line by `hen report`, set aside by `hen run`."""

import json
from contextlib import closing

import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, set_aside
from hen_jax.core.shapes import checked_shape, is_count, is_figure
from hen_jax.evaluation.calibration import calibration_of
from hen_jax.recipes import policy_reward_kinds
from hen_jax.recipes.policy_reward_source import RewardSource
from hen_jax.training.goodput import Goodput
from hen_jax.training.manifests import find_damage
from hen_jax.training.metrics import MetricLog, read_metrics
from hen_jax.training.trackers import ID_FILE, _identity
from hen_jax.verbs.report.charts import ChartInterval, intervals

LONG = "1" + "0" * 400
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1], "b": "x"}, None),
        ({"a": [1, None], "b": "x", "c": {"d": "e"}}, None),
        ({"a": [1, True], "b": "x"}, "a[1] is True; it must be null or a number"),
        ({"a": [int(LONG)], "b": "x"}, f"a[0] is {LONG[:37]}...; it must be null or a number"),
        ({"a": [], "b": None}, "b is None; it must be text"),
        ({"a": []}, "b is missing"),
        ({"a": [], "b": "x", "c": {"d": 1}}, "c.d is 1; it must be text"),
        ({"a": [], "b": "x", "c": 1}, "c is 1; it must be an object"),
    ],
)
def test_where_a_value_does_not_fit(value, said):
    shape = {"a": [(None, is_figure)], "b": str, "c?": {...: str}}
    if said is None:
        assert checked_shape(value, shape, "F", "R") is value
    else:
        with pytest.raises(InputError) as raised:
            checked_shape(value, shape, "F", "R")
        assert str(raised.value) == f"F: {said}: R"


@pytest.mark.parametrize(
    ("value", "shape", "said"),
    [
        ([], {"a": str}, "it is []; it must be an object"),
        (True, int, "it is True; it must be a whole number"),
        (float("nan"), float, "it is nan; it must be a finite number"),
        (10**400, (float, str), "it must be a finite number or text"),
        ({"a": {"b": 1}}, {"a": (None, {"b": str})}, "a.b is 1; it must be text"),
        ([0, -1], [is_count], "[1] is -1; it must be a whole number from 0"),
        ({"a\n": 1}, {...: str}, r"'a\n' is 1; it must be text"),
    ],
)
def test_what_each_shape_wants(value, shape, said):
    with pytest.raises(InputError) as raised:
        checked_shape(value, shape, "F")
    assert said in str(raised.value)
    assert checked_shape(1, (int, None), "F") == 1


def test_which_numbers_count_and_which_can_be_drawn():
    assert all(map(is_count, (0, 7, 2**53)))
    assert not any(map(is_count, (-1, 0.5, True, int(LONG), "1", None)))
    assert all(map(is_figure, (0, -1.5, float("nan"), float("inf"), 1e300)))
    assert not any(map(is_figure, (int(LONG), 1e301, False, "1", None)))
    for value in (1e300, 5e-324, 0.0):
        assert intervals("t", "x", [ChartInterval("a", value, -value, value)], at=0.0)


BASE = {"weights_sha256": "a", "tokenizer_sha256": "b"}
CONFIG = {"recipe": "sft", "model": {"source": "m"}, "sources": [], "seed": 0, "stages": []}
RECORD = {"config": CONFIG, "base": BASE, "versions": {}}
LINE = '{"step": 1, "kind": "train", "loss": 2.0}\n'
ACCURACY = '{"accuracy": {"a": {"model": {"value": %s, "low": 1, "high": 2, "groups": 3}, %s}}}'
FIGURE = '{"figures": [{"suite": "a", "arm": "b", %s}], "not_measured": []}'

DAMAGES = {
    "metrics.jsonl": (
        *(LINE + f"{text}\n" for text in (DEEP, "[]", LINE.replace("1", LONG).strip())),
        *(LINE.replace("2.0", text) for text in ('"x"', "[1]", LONG, "{}")),
    ),
    "goodput.json": ("[]", '{"attempts": [1]}', '{"seconds": 1}', '{"seconds": {"a": "b"}}',
                     f'{{"seconds": {{"a": {LONG}}}}}', "null", DEEP),
    "reward.json": ("[]", "{}", "null", '{"accuracy": 1}', '{"accuracy": {"a": {}}}',
                    ACCURACY % ('"x"', '"pairs": 1'), ACCURACY % ("null", '"pairs": 1'),
                    ACCURACY % (LONG, '"pairs": 1'), ACCURACY % ("0.5", '"pairs": {}')),
    "replies/0.json": ("[1]", "null", '"ab"', '[{"id": ["a"], "reply": "b"}]', "{}",
                       '[{"id": "a", "reply": null}]'),
    "evaluate/results.json": (
        FIGURE % '"value": 1', FIGURE % '"measure": "m", "better": 4',
        FIGURE % '"measure": "m", "against": {}', FIGURE % f'"measure": "m", "value": {LONG}',
        '{"figures": 1, "not_measured": []}', '{"figures": [], "not_measured": [{"suite": "a"}]}',
    ),
    "prepare/data.json": ("[]", '{"a": 1}', "null", '{"models": [1]}', '{"models": 1, "data": 2}',
                          '{"models": [], "data": [1]}'),
    "hen_jax.json": tuple(
        json.dumps({"kind": "run", **RECORD} | change)
        for change in ({"base": {}}, {"config": []}, {"config": CONFIG | {"adapter": 1}},
                       {"versions": []}, {"config": CONFIG | {"start": []}},
                       {"kind": "pipeline", "config": {"stages": [1]}})
    ),
}  # fmt: skip
CASES = [(name, text) for name, texts in DAMAGES.items() for text in texts]


@pytest.fixture
def folder(tmp_path):
    """A run's folder, with a log and figures."""
    path = tmp_path / "run"
    for inside in ("replies", "evaluate", "prepare"):
        (path / inside).mkdir(parents=True)
    (path / "hen_jax.json").write_text(json.dumps({"kind": "run", **RECORD}))
    (path / "metrics.jsonl").write_text(LINE)
    return path


@pytest.mark.parametrize(
    ("name", "text"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)]
)
def test_a_report_names_a_file_of_another_shape(name, text, folder, tmp_path, capsys):
    (folder / name).write_text(text)
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert str(folder / name) in told
    assert not (tmp_path / "page.html").exists()


def test_a_report_of_half_a_character_and_of_no_number(folder, tmp_path):
    (folder / "replies" / "².json").write_text("[]")
    (folder / "replies" / "0.json").write_text('[{"id": "a", "reply": "\\ud800"}]')
    (folder / "evaluate" / "results.json").write_text(FIGURE % '"measure": "m", "against": "c"')
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert "\\ud800" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", DAMAGES["metrics.jsonl"] + (
    LINE.replace("2.0", '2.0, "seconds": "x"'),))  # fmt: skip
def test_a_run_sets_a_damaged_log_aside(text, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text(text)
    with closing(MetricLog(tmp_path, 1, 2, quiet=True)):
        assert "metrics.jsonl is set aside as metrics.jsonl.damaged" in capsys.readouterr().err
    read_metrics(tmp_path)


ATTEMPT = '{"attempts": [{"began": "%s", "until": "%s", "ended": "x", "seconds": %s}]}'
TODAY = "2026-12-01T00:00:00"


@pytest.mark.parametrize("text", DAMAGES["goodput.json"] + (
    ATTEMPT % (TODAY, TODAY, '{"productive": 1}'),
    ATTEMPT % (TODAY, TODAY, json.dumps(dict.fromkeys(
        ("productive", "compile", "input", "evaluation", "checkpoint", "lost"), int(LONG)))),
))  # fmt: skip
def test_a_run_sets_a_damaged_ledger_aside(text, tmp_path, capsys):
    (tmp_path / "goodput.json").write_text(text)
    Goodput(tmp_path, 0, 0.0).write(1, "finished")
    assert "goodput.json is set aside as goodput.json.damaged" in capsys.readouterr().err
    assert len(read_json(tmp_path / "goodput.json")["attempts"]) == 1


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"id": 1}', DEEP])
def test_a_run_sets_a_damaged_id_aside(text, tmp_path, capsys):
    (tmp_path / ID_FILE).write_text(text)
    found = _identity(tmp_path)
    assert len(found) == 8
    assert f"{ID_FILE} is set aside" in capsys.readouterr().err
    assert _identity(tmp_path) == found


def test_a_folder_in_the_place_of_a_log_is_set_aside_each_time(tmp_path):
    for number in range(3):
        for name in ("metrics.jsonl", "goodput.json", ID_FILE):
            (tmp_path / name).mkdir()
            (tmp_path / name / "inside").write_text(str(number))
        with closing(MetricLog(tmp_path, 0, 2, quiet=True)):
            Goodput(tmp_path, 0, 0.0).write(1, "finished")
            _identity(tmp_path)
        for name in ("metrics.jsonl", "goodput.json", ID_FILE):
            assert (tmp_path / name).is_file()
            (tmp_path / name).unlink()
    kept = sorted(path.name for path in tmp_path.glob("metrics*"))
    assert kept == [f"metrics.jsonl.damaged{end}" for end in ("", "-2", "-3")]
    (tmp_path / "metrics.jsonl").write_text("")
    set_aside(tmp_path / "metrics.jsonl", "a file goes where no folder is")
    assert (tmp_path / "metrics.jsonl.damaged-4").is_file()


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_manifest_with_a_name_of_no_file(name, tmp_path):
    files = {"files": {name: {"bytes": 1, "sha256": "x"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(files))
    assert repr(name) in str(find_damage(tmp_path))
    with pytest.raises(InputError):
        read_json(tmp_path / name)


@pytest.mark.parametrize("text", ["[]", "{}", '{"tasks": []}', '{"tasks": {"a": 1}}', '"x"',
                                  '{"temperature": "x", "tasks": {}}'])  # fmt: skip
def test_a_calibration_of_another_shape(text, tmp_path):
    path = tmp_path / "reward.json"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"reward\.json: .*; it must be |reward\.json: .* is missing"
    ):
        policy_reward_kinds._calibration(RewardSource("model", calibration=str(path)))
    with pytest.raises(InputError, match=r"F: (.*; it must be|.* is missing)"):
        calibration_of(json.loads(text), "F")


@pytest.mark.parametrize("text", ["[]", "null", '{"reward": 1}', '{"reward": {}}', "{}"])
def test_a_reward_record_of_another_shape(text, tmp_path):
    (tmp_path / "hen_jax.json").write_text(text)
    with pytest.raises(InputError, match=str(tmp_path)):
        policy_reward_kinds._calibration(RewardSource("model", path=str(tmp_path)))
    for source in (RewardSource("model", path="a\0b"), RewardSource("model", calibration="a\0b")):
        with pytest.raises(InputError):
            policy_reward_kinds._calibration(source)

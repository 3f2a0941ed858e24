"""What a run logs of itself: sealed line by line, told and set aside where it is damaged."""

import json
from contextlib import closing

import pytest

from hen_jax.core.errors import InputError
from hen_jax.training.goodput import Goodput
from hen_jax.training.metrics import MetricLog, read_metrics


def test_no_change_of_the_log_or_the_ledger_is_believed(tmp_path, capsys):
    with closing(MetricLog(tmp_path, 0, 2, quiet=True)) as log:
        log.train(1, {"loss": 1.25})
        log.train(2, {"loss": 1.5})
    path, ledger = tmp_path / "metrics.jsonl", tmp_path / "goodput.json"
    whole = path.read_text()
    for old, new in (
        ("1.5", "1.6"),
        ('"seal"', '"sial"'),
        ('"loss"', '"lost"'),
        ('"step": 2', "3"),
    ):
        path.write_text(new.join(whole.rsplit(old, 1)))
        with pytest.raises(InputError, match=r"metrics\.jsonl:2 is no line of metrics as it was"):
            read_metrics(tmp_path)
    with closing(MetricLog(tmp_path, 2, 2, quiet=True)):
        told = said(capsys)
    assert "its line 2 is not as it was written" in told
    assert "of 2 updates it lacks 1, the first one update 2" in told
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.25]

    Goodput(tmp_path, 0, 0.0).write(1, "running")
    written = ledger.read_text()
    assert len(Goodput(tmp_path, 1, 0.0)._earlier) == 1
    for text in (written.replace("2", "3", 1), "[]", "{}", '{"attempts": [{}]}', "", "\ufffd"):
        ledger.write_text(text)
        assert Goodput(tmp_path, 1, 0.0)._earlier == []
        assert "goodput.json is set aside as goodput.json.damaged" in said(capsys)


def said(capsys):
    return capsys.readouterr().err


def test_a_run_killed_before_its_first_checkpoint_logs_no_line_twice(tmp_path):
    for _ in range(2):
        with closing(MetricLog(tmp_path, 0, 2, quiet=True)) as log:
            log.evaluation(0, {"loss": 2.0})
    assert len(read_metrics(tmp_path)) == 1


def test_a_damaged_line_of_metrics_is_named(tmp_path, capsys):
    good = json.dumps({"step": 1, "kind": "train", "seconds": None})
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{good[:9]}\u2028\n{good}\n{good[:20]}")
    with pytest.raises(InputError, match=r"metrics\.jsonl:2 is no line of metrics"):
        read_metrics(tmp_path)
    with closing(MetricLog(tmp_path, 1, 2, quiet=True)):
        assert "metrics.jsonl is set aside as metrics.jsonl.damaged: its line 2" in said(capsys)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 1]
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{good[:20]}")
    with closing(MetricLog(tmp_path, 0, 2, quiet=True)) as log:
        assert log.lost_seconds == 0.0
    assert read_metrics(tmp_path) == []

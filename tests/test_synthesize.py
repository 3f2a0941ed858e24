"""`hen synthesize` as a whole, by writers of known habits."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from scripted_writers import MARK, writer
from tiny_run import open_job

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.data.schemas import read_documents, read_pairs, read_records
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.text.conversation import Reply, UnansweredError
from hen_jax.verbs.synthesize import synthesize as recipe
from hen_jax.verbs.synthesize.settings import Synthesis
from hen_jax.verbs.synthesize.synthesize import synthesize

LATER = (".hen_written.json", "settings.json")


def files_of(folder):
    """Every file but those that name the folder's own back-end or time."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in LATER
    }


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "revision", lambda *_: "r1")

    def started(speaker=None, out="out", **more):
        one = writer(more.get("language", "en")) if speaker is None else speaker
        monkeypatch.setattr(recipe, "open_speaker", lambda *_: one)
        given = {"backend": "model:x", "each": 4, "turns": (2, 3), "batch_size": 3, "seed": 1}
        return synthesize(Synthesis(**{**given, "out": tmp_path / out, **more}))

    return started


def test_pairs_share_their_user_side_and_train_everything(start, tmp_path, capsys):
    found = start(judge="model:x")
    out, total = tmp_path / "out", 0
    for name in ("distress", "career", "learning", "writing"):
        plain = read_records(out / f"{name}.jsonl", "steered")
        hard = read_records(out / f"{name}.hard.jsonl", "steered")
        counts = found["yield"][name]
        assert (counts["scenes"], counts["kept pairs"]) == (4, len(plain))
        assert counts["kept hard"] == len(hard) > 0
        of_id = {one.id: one for one in plain}
        total += len(plain)
        for record in plain:
            assert 2 <= len(record.turns) <= 3
            assert all(turn.chosen.startswith(MARK["en"][0]) for turn in record.turns)
            assert all(turn.rejected.startswith(MARK["en"][1]) for turn in record.turns)
        for record in hard:
            base = of_id[record.group]
            sides = [[(turn.user, turn.chosen) for turn in one.turns] for one in (record, base)]
            assert sides[0] == sides[1]
            assert record.fault is not None
            assert record.turns[0].rejected != base.turns[0].rejected
        assert cli.main(["data", "validate", str(out / f"{name}.jsonl"), "--schema=steered"]) == 0
        assert len(read_pairs(out / f"{name}.jsonl", "steered")) == len(plain)  # reward
        assert len(read_documents(out / f"{name}.jsonl", "steered")) == len(plain)  # experts
    assert len(read_pairs(out / "crossed.jsonl", "crossed")) == 2 * total
    assert total > 12
    # The scripted hands differ in one word, which is all that a bag of words needs.
    assert found["give_aways"]["pairs"]["bag_of_words"]["value"] > 0.9
    assert found["crossed"]["bag_of_words"]["value"] == 0.5
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card in capsys.readouterr().out
    assert "| crossed |" in card


def test_runs_of_experts_and_rewards_open_on_the_folder(start, tiny_base, tmp_path):
    start(contexts=("distress", "writing"), each=24, turns=(2, 2))
    out = tmp_path / "out"
    steered = [
        {"schema": "steered", "path": f"{out}/{name}.jsonl"} for name in ("distress", "writing")
    ]
    experts = tuple(
        {"name": name, "sources": (source,)}
        for name, source in zip(("distress", "writing"), steered, strict=True)
    )
    data = {"row_length": 512, "batch_size": 8}
    job = open_job(tiny_base, tmp_path / "experts", recipe="experts", experts=experts, sources=(),
                   data={**data, "batch_size": 2})  # fmt: skip
    assert set(job.trainable) == {"distress", "writing"}
    hard = {"schema": "steered", "path": f"{out}/distress.hard.jsonl"}
    crossed = {"schema": "crossed", "path": f"{out}/crossed.jsonl"}
    job = open_job(tiny_base, tmp_path / "reward", recipe="reward", data=data,
                   sources=(*steered, hard, crossed), crossings=("turn",))  # fmt: skip
    assert job.feed.steps >= 1


def test_twice_on_a_replay_is_the_same_bytes(start, tmp_path, monkeypatch):
    replay = tmp_path / "said.jsonl"
    first = start(judge="model:x", record=replay)
    monkeypatch.undo()
    flags = ["--each=4", "--turns", "2", "3", "--batch-size=3", "--seed=1"]
    for out in ("one", "two"):
        given = [f"--backend=replay:{replay}", f"--judge=replay:{replay}", *flags]
        assert cli.main(["synthesize", f"--out={tmp_path / out}", *given]) == 0
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one == two
    same = [name for name in one if name not in ("report.json", "README.md")]  # they name it
    assert {name: one[name] for name in same} == {
        name: body for name, body in files_of(tmp_path / "out").items() if name in same
    }
    report = json.loads(one["report.json"])
    assert report["yield"] == first["yield"]


@pytest.mark.parametrize("after", [1, 7, 16])
def test_a_killed_run_ends_with_the_same_bytes(start, tmp_path, after):
    """Killed before a chunk is written, with half a line behind the last whole one."""
    start(out="whole", judge="model:x")
    left = iter(range(after))
    speaker = writer()

    def dying(seed):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return speaker(seed)

    with pytest.raises(KeyboardInterrupt):
        start(dying, out="killed", judge="model:x")
    assert not (tmp_path / "killed" / "report.json").exists()
    begun = max((tmp_path / "killed").glob("calls.*"), key=lambda path: path.stat().st_size)
    with begun.open("ab") as file:
        file.write(b'{"calls": [{"key": "half')
    asked = []

    def counted(seed):
        asked.append(seed)
        return speaker(seed)

    start(counted, out="killed", judge="model:x")
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    before = len(asked)
    start(counted, out="killed", judge="model:x")  # all is there
    assert len(asked) == before


def test_what_an_endpoint_gave_before_it_failed_is_kept(start, tmp_path):
    speaker, calls = writer(), []

    def failing(seed):
        def chat(asked):
            calls.append(len(asked))
            replies = speaker(seed)(asked)
            if len(calls) == 2:
                raise UnansweredError("endpoint: 503", [replies[0], *[None] * (len(asked) - 1)])
            return replies

        return chat

    with pytest.raises(InputError, match=r"503; what came is kept, and the same command goes on"):
        start(failing, out="failed")
    start(failing, out="failed")
    start(out="whole")
    written = [files_of(tmp_path / one)["distress.jsonl"] for one in ("failed", "whole")]
    assert written[0] == written[1]
    assert calls[2] == calls[1] - 1  # the one that came is not asked again


def test_chinese_is_chinese(start, tmp_path):
    found = start(language="zh", contexts=("distress",), each=6)
    (kept,) = (one["kept pairs"] for one in found["yield"].values())
    assert kept > 3
    record = read_records(tmp_path / "out" / "distress.jsonl", "steered")[0]
    assert record.persona.occupation.isascii() is False
    with pytest.raises(InputError, match="nothing could be kept of 2 conversations"):
        start(writer("en"), out="english", language="zh", contexts=("career",), each=2)
    dropped = (tmp_path / "english" / "dropped.jsonl").read_text().splitlines()
    assert {json.loads(line)["detail"] for line in dropped} == {"in another language"}


def test_replies_that_are_none_end_a_conversation_and_say_why(start, tmp_path):
    speaker, texts = writer(), iter(["User: hm", " ", "fine\x00", "cut"])

    def odd(seed):
        def chat(asked):
            replies = speaker(seed)(asked)
            for at, messages in enumerate(asked):
                if "Answer the person" in messages[0].content:
                    text = next(texts, None)
                    if text is not None:
                        replies[at] = Reply(text, stopped=text != "cut")
            return replies

        return chat

    start(odd, contexts=("distress",), each=6, hard=0.0)
    rows = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert [row["why"] for row in rows[:4]] == ["chosen"] * 4
    assert "speaks for both" in rows[0]["detail"]
    assert "empty" in rows[1]["detail"]
    assert "holds" in rows[2]["detail"]
    assert "cut off" in rows[3]["detail"]
    assert not (tmp_path / "out" / "distress.hard.jsonl").exists()


def test_a_judge_that_goes_by_the_place_keeps_nothing(start, tmp_path):
    def first(text, language):
        return '{"winner": "A"}' if '"winner"' in text else '{"score": 5}'

    with pytest.raises(InputError, match="nothing could be kept"):
        start(writer(judge=first), judge="model:x", contexts=("writing",))
    rows = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    judged = [row["detail"] for row in rows if row["why"] == "judge"]
    assert judged
    assert set(judged) == {"the judge does not decide, or goes by the place"}


def test_a_context_of_ones_own_is_written_and_read(start, tmp_path):
    patterns, materials = tmp_path / "mine.toml", tmp_path / "more.toml"
    weights = "\n".join(f"{name} = {1 / 7}" for name in DIMENSIONS)
    patterns.write_text(
        '[grief]\nlevel = 0.9\ntasks = ["bereavement"]\nabout = "a death"\nrules = ["Stay."]\n'
        f"[grief.weights]\n{weights}\n"
    )
    with pytest.raises(InputError, match=r"openings\.bereavement: missing"):
        start(patterns=patterns)
    materials.write_text('[openings]\nbereavement = ["Your aunt died.", "Your dog died."]\n')
    start(patterns=patterns, materials=materials)
    (first, *_) = read_records(tmp_path / "out" / "grief.jsonl", "steered")
    assert (first.context, first.task) == ("grief", "bereavement")
    assert read_records(tmp_path / "out" / "crossed.jsonl", "crossed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": (1, 3)}, "--turns 1 3; allowed: two numbers from 2 to 10"),
        ({"hard": 2.0}, "--hard is 2.0; allowed"),
        ({"near": 0.4}, "--near is 0.4"),
        ({"length_ratio": 1.0}, "--length-ratio is 1.0"),
        ({"each": 0}, "each is 0"),
        ({"contexts": ("grief",)}, "context 'grief'; allowed: distress"),
        ({"contexts": ("distress", "distress")}, "--contexts names 'distress' twice"),
        ({"each": 999}, r"999 scenes of distress, and its 16 openings and 16 personas make 256"),
    ],
)
def test_bad_input_is_one_line(start, tmp_path, changes, message):
    with pytest.raises(InputError, match=re.escape(message) if "\\" not in message else message):
        start(**changes)
    assert not (tmp_path / "out").exists()


def test_other_settings_and_other_files_are_refused(start, tmp_path):
    start(contexts=("writing",))
    with pytest.raises(InputError, match=r"other settings \(temperature was 0.8, is 0.5\)"):
        start(contexts=("writing",), temperature=0.5)

    def judging(seed):
        def chat(asked):
            assert all("<<<" in messages[-1].content for messages in asked)
            return writer()(seed)(asked)

        return chat

    found = start(judging, contexts=("writing",), near=0.9, judge="model:y")
    assert found["settings"]["near"] == 0.9
    with pytest.raises(InputError, match=r"other settings \(judge was 'model:y', is None\)"):
        start(contexts=("writing",))
    (tmp_path / "out" / "writing.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match="is not what hen_jax wrote there"):
        start(contexts=("writing",), judge="model:y")
    assert (tmp_path / "out" / "writing.jsonl").read_text() == "mine\n"


def test_no_two_scenes_are_the_same(start, tmp_path):
    start(contexts=("writing",), each=30)
    rows = [json.loads(line) for line in (tmp_path / "out/scenes.jsonl").read_text().splitlines()]
    assert len({(row["opening"], row["persona"]["occupation"]) for row in rows}) == 30
    openings = [row["opening"] for row in rows]
    assert len(set(openings[:12])) == 12  # all of them before any again
    assert sum(row["fault"] is not None for row in rows) == 15
    assert np.unique([row["turns"] for row in rows]).tolist() == [2, 3]


@pytest.mark.slow  # four processes of some seconds each
def test_sigkill_changes_no_byte(start, tmp_path, monkeypatch):
    replay = tmp_path / "said.jsonl"
    start(judge="model:x", record=replay, each=6)
    monkeypatch.undo()
    flags = [f"--backend=replay:{replay}", f"--judge=replay:{replay}", "--each=6"]
    flags += ["--turns", "2", "3", "--batch-size=3", "--seed=1"]

    def command(out: str) -> list[str]:
        return [sys.executable, "-m", "hen_jax", "synthesize", f"--out={tmp_path / out}", *flags]

    subprocess.run(command("whole"), check=True, capture_output=True)
    for stage in ("chosen", "rejected", "judge"):
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL)
        calls = tmp_path / "killed" / f"calls.{stage}.jsonl"
        while not calls.exists() or calls.stat().st_size < 100:  # its first line, and no more
            assert process.poll() is None
            time.sleep(0.0005)
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "report.json").exists()
    subprocess.run(command("killed"), check=True, capture_output=True)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")

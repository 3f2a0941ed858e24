"""Places where files grow: whole or absent after any kill, none left over, none alive lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hen_jax.core import folders, staging
from hen_jax.core.errors import InputError
from hen_jax.core.files import staged_file
from hen_jax.core.folders import staged_folder
from hen_jax.core.records import verify, write_record
from hen_jax.core.staging import place_for, scratch_folder, sweep

WRITE = """
import os, signal, sys
from pathlib import Path
from hen_jax.core import folders, staging
from hen_jax.core.records import write_record
if "fallback" in sys.argv:
    staging._swapped = lambda one, other: False
if "between" in sys.argv:
    rename = Path.rename
    def once(path, target):
        rename(path, target)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = once
for number in range(10**9):
    with folders.staged_folder(Path(sys.argv[1]), "thing") as folder:
        for name in "abc":
            (folder / name).write_text(str(number) * 1000)
        write_record(folder, "thing", {})
    print(number, flush=True)
"""


def write(path: Path, text: str = "0"):
    with staged_folder(path, "thing") as folder:
        for name in "abc":
            (folder / name).write_text(text)
        write_record(folder, "thing", {})


def start(path: Path, *how: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path), *how], stdout=subprocess.PIPE)


def assert_whole(path: Path):
    assert sorted(entry.name for entry in path.iterdir()) == ["a", "b", "c", "hen_jax.json"]
    verify(path)
    assert len({(path / name).read_text() for name in "abc"}) == 1


@pytest.mark.parametrize("how", [(), ("fallback",)])
def test_a_folder_is_whole_after_a_kill_at_any_moment_and_nothing_stays(tmp_path, how):
    path = tmp_path / "thing"
    write(path)
    for _ in range(3):
        process = start(path, *how)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.random() * 0.02)
        process.kill()
        process.communicate()
        sweep(tmp_path)
        assert_whole(path)
        assert list(tmp_path.iterdir()) == [path]


def test_a_kill_between_two_renames_leaves_the_old_folder(tmp_path):
    path = tmp_path / "thing"
    write(path, "old")
    process = start(path, "fallback", "between")
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not path.exists()
    verify(path)  # whoever opens it next puts it back
    assert_whole(path)
    assert (path / "a").read_text() == "old"


def test_the_exchange_is_of_both_names_at_once(tmp_path, monkeypatch):
    write(tmp_path / "thing", "old")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("two renames"))
    write(tmp_path / "thing", "new")
    assert_whole(tmp_path / "thing")
    assert (tmp_path / "thing" / "a").read_text() == "new"


def test_what_a_live_process_writes_is_left_alone(tmp_path):
    with place_for(tmp_path / "mine") as place:
        (place / "mine").write_text("half")
        sweep(tmp_path)
        with staged_file(tmp_path / "other") as staged:
            staged.write_text("whole")
        assert (place / "mine").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def left_over(folder: Path, system: str, owner: bool = True) -> Path:
    place = folder / f".model.hen-{system}-abcd1234.part"
    (place / "model").mkdir(parents=True)
    (place / "model" / "weights").write_text("half")
    if owner:
        (place / "owner").write_text("model")
    return place


def test_the_dead_of_this_machine_go_and_others_only_after_a_week(tmp_path):
    dead = left_over(tmp_path, staging._system())
    elsewhere = left_over(tmp_path, "0" * 8)
    begun = left_over(tmp_path, "1" * 8, owner=False)
    mine = tmp_path / ".notes.part"
    mine.mkdir()
    sweep(tmp_path)
    assert not dead.exists()
    assert elsewhere.exists()
    assert begun.exists()
    long_ago = time.time() - staging.ABANDONED - 60
    for path in [*elsewhere.rglob("*"), elsewhere]:
        os.utime(path, (long_ago, long_ago))
    sweep(tmp_path)
    assert not elsewhere.exists()
    assert begun.exists()
    assert mine.exists()


@pytest.mark.parametrize("begun", [True, False])
def test_a_kill_before_the_lock_leaves_nothing_for_the_next(tmp_path, begun):
    place = tmp_path / f".model.hen-{staging._system()}-abcd1234.part"
    place.mkdir()
    if begun:
        (place / "owner.new").write_text("")
    sweep(tmp_path)
    assert not place.exists()


@pytest.mark.parametrize("begun", [True, False])
def test_a_place_that_is_swept_before_its_lock_is_made_again(tmp_path, monkeypatch, begun):
    """The sweep of another process comes just before the file is locked, or is there."""
    own, swept = staging._own, []

    def late(place, name):
        if not swept:
            if begun:
                (place / "owner.new").touch()
            sweep(tmp_path)
            swept.append(place)
        return own(place, name)

    monkeypatch.setattr(staging, "_own", late)
    with place_for(tmp_path / "mine") as place:
        sweep(tmp_path)
        assert place.exists()
    assert place != swept[0]
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_nothing_and_the_old_file(tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(FileNotFoundError), staged_file(tmp_path / "f") as staged:
        shutil.copytree(tmp_path / "nothing", staged)
    assert (tmp_path / "f").read_text() == "old"
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path) as folder:
        shutil.copytree(tmp_path / "nothing", folder / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_two_that_build_the_same_folder_both_end_well(tmp_path):
    path = tmp_path / "thing"
    with staged_folder(path, "thing") as first:
        for name in "abc":
            (first / name).write_text("1")
        write_record(first, "thing", {})
        write(path, "2")
    assert_whole(path)
    assert (path / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]


def test_notes_that_come_while_it_is_written_are_kept(tmp_path):
    path = tmp_path / "thing"
    write(path)

    def interrupted():
        with staged_folder(path, "thing") as staged:
            write_record(staged, "thing", {})
            (path / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match=r"notes\.txt in it was not written by hen_jax"):
        interrupted()
    assert (path / "notes.txt").read_text() == "mine"
    assert (path / "a").exists()
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_has_a_place_too(tmp_path):
    name = "好" * 80
    write(tmp_path / name)
    assert_whole(tmp_path / name)
    assert json.loads((tmp_path / name / "hen_jax.json").read_text())["kind"] == "thing"


def test_a_cache_entry_goes_whatever_its_files_hold_and_no_other(tmp_path):
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "hen_jax.json").write_text("{damaged")
    (entry / "rows.npy").write_text("damaged")
    patterns = ("hen_jax.json", "*.npy")
    folders.require_replaceable(entry, "examples", patterns)
    with pytest.raises(InputError, match="is not replaced"):
        folders.require_replaceable(entry, "examples")
    (entry / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not replaced"):
        folders.require_replaceable(entry, "examples", patterns)


def test_an_exchange_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_swapped", lambda *_: False)
    for name in ("old", "place"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError):
        staging.exchange(tmp_path / "gone", tmp_path / "old", tmp_path / "place")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "place"]
    assert list((tmp_path / "place").iterdir()) == []

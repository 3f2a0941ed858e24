"""The cache of rendered examples: built once by several, whole or built anew, never believed."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_model import documents

import hen_jax.data.cache
from hen_jax.core.cached import built_once
from hen_jax.core.checksums import code_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.data.cache import cached
from hen_jax.data.examples import Encoded
from hen_jax.data.stores import open_store, rows_of

EXAMPLES = documents([5, 9, 13, 4, 7, 21])
KEY = "key"


def encoded():
    return [Encoded(EXAMPLES, (), ())]


def contents(store) -> list:
    rows = [rows_of(store, 32, packing) for packing in ("fewest_rows", "shared_prefix")]
    read = store.read(range(len(EXAMPLES)))
    return [
        [(one.id, one.group, one.tokens.tolist(), one.mask.tolist()) for one in read],
        [store.lengths.tolist(), store.trained.tolist()],
        [[array.tolist() for array in vars(kept).values()] for kept in rows],
    ]


@pytest.fixture(scope="module")
def entry(tmp_path_factory) -> Path:
    """A cache with one entry, its rows and prefixes written down."""
    folder = tmp_path_factory.mktemp("cache")
    contents(cached(folder, KEY, encoded))
    return folder


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_several_that_build_one_entry_at_once_leave_one(tmp_path, entry):
    waiting = threading.Barrier(8, timeout=30)

    def build():
        waiting.wait()  # all have seen that there is none
        yield from encoded()

    def ask(_: int) -> list:
        return contents(cached(tmp_path, KEY, build))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert all(one == found[0] for one in found)
    assert everything(tmp_path) == everything(entry)


FILES = {RECORD, "examples.array_record", "lengths.npy", f"prefixes/{RECORD}"}

DAMAGES = {
    "flipped in the middle": lambda path, data: path.write_bytes(flipped(data, len(data) // 2)),
    "flipped at the end": lambda path, data: path.write_bytes(flipped(data, len(data) - 3)),
    "cut": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "longer": lambda path, data: path.write_bytes(data + b"\0\0\0\0"),
    "empty": lambda path, data: path.write_bytes(b""),
    "gone": lambda path, _: path.unlink(),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_never_believed_and_is_mended_with_one_line(entry, tmp_path, capsys, damage):
    files = [path.relative_to(entry / KEY).as_posix() for path in (entry / KEY).rglob("*.*")]
    files = sorted(name for name in files if (entry / KEY / name).is_file())
    assert set(files) > FILES
    for number, name in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(entry, folder)
        if name.startswith("prefixes"):  # which are read only where rows are still to be packed
            shutil.rmtree(folder / KEY / "rows.32.shared_prefix")
        path = folder / KEY / name
        DAMAGES[damage](path, path.read_bytes())
        assert contents(cached(folder, KEY, encoded)) == contents(cached(entry, KEY, pytest.fail))
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 1, said
        assert "is damaged" in said[0]
        assert everything(folder) == everything(entry)


def test_a_damaged_store_that_is_no_caches_is_refused(entry, tmp_path):
    shutil.copytree(entry / KEY, tmp_path / "store")
    np.save(tmp_path / "store" / "trained.npy", np.zeros(6, np.int32))
    with pytest.raises(InputError, match=r"trained\.npy is not as written"):
        open_store(tmp_path / "store")
    with pytest.raises(InputError, match="no store of examples"):
        open_store(tmp_path)


def test_what_fails_leaves_nothing(tmp_path):
    def broken():
        yield from encoded()
        raise InputError("line 7")

    with pytest.raises(InputError, match="line 7"):
        cached(tmp_path, KEY, broken)
    assert everything(tmp_path) == []


def test_the_loser_takes_the_winners(tmp_path):
    def build(new: Path) -> None:
        for place in (new, tmp_path / "entry"):  # another process is done meanwhile
            place.mkdir()
            (place / "made").write_text(place.name)
        (tmp_path / "entry" / "made").write_text("winner")

    built_once(tmp_path / "entry", build, lambda _: None)
    assert (tmp_path / "entry" / "made").read_text() == "winner"
    assert everything(tmp_path) == ["entry", "entry/made"]


def test_a_reader_in_a_subfolder_is_part_of_the_key(tmp_path, monkeypatch):
    package = tmp_path / "data"
    (package / "readers").mkdir(parents=True)
    monkeypatch.setattr(hen_jax.data, "__path__", [str(package)])
    keys = set()
    for text in ("x = 1", "x = 2"):
        (package / "readers" / "new.py").write_text(text)
        code_sha256.cache_clear()
        keys.add(hen_jax.data.cache._code())
    code_sha256.cache_clear()
    assert len(keys) == 2

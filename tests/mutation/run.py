"""Changes the package on purpose, one place at a time, and counts the changes that no test sees.

    make mutants                                        # every file of targets.toml
    make mutants FILE=hen_jax/training/optimizers.py
    make mutants FILE=hen_jax/data/packing.py SAMPLE=0  # every change, not a sample

Mutants are made by the operators of cosmic-ray, and by hand where no operator makes a mistake that
people make. Each is written into a copy of the repository in a temporary folder: the working tree
is never touched. Tests run in a fork of this process, which has imported jax already; that is most
of what a run of few tests takes. Operators whose mutants only crash (shifts and bits of floats,
`|` between types) are left out, for they would flatter the score.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import flax.nnx
import jax
import optax
import pytest
from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator

HERE = Path(__file__).parent
WARM = (flax.nnx, jax, optax)
"""Imported before the fork; nothing of hen_jax may be."""

CRASHES = re.compile(
    r"BinaryOperator_(BitOr_|.*_(RShift|LShift|BitOr|BitAnd|BitXor|Pow|Mod|FloorDiv))"
)

PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
OUTPUT = "output.txt"


class Mutant(NamedTuple):
    """One change of one file; inside `apply` it is on the disk."""

    text: str
    apply: AbstractContextManager


def by_hand(file: Path, mutants: list[dict[str, str]]) -> Iterator[Mutant]:
    """The changes that targets.toml spells out for a file."""

    @contextlib.contextmanager
    def replaced(old: str, new: str) -> Iterator[None]:
        source = file.read_text(encoding="utf-8")
        if source.count(old) != 1:
            sys.exit(f"targets.toml: {old!r} stands {source.count(old)} times in {file}, not once")
        file.write_text(source.replace(old, new), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(source, encoding="utf-8")

    for one in mutants:
        yield Mutant(f"{one['old']}  ->  {one['new']}", replaced(one["old"], one["new"]))


def by_operators(file: Path, sample: int) -> Iterator[Mutant]:
    """Cosmic-ray's mutants of a file, `sample` of them drawn with a fixed seed (0: all)."""
    items = [item.mutations[0] for item in _all_work_items([file], {})]
    items = [item for item in items if not CRASHES.search(item.operator_name)]
    if sample:
        items = random.Random(0).sample(items, min(sample, len(items)))
    lines = file.read_text(encoding="utf-8").splitlines()
    for item in items:
        operator = get_operator(item.operator_name)(**item.operator_args)
        row, column = item.start_pos
        text = f"line {row}, column {column}, {item.operator_name}: {lines[row - 1].strip()}"
        yield Mutant(text, use_mutation(file, operator, item.occurrence))


def tests_pass(folder: Path, tests: list[str], timeout: float) -> bool:
    """Whether the tests pass in a fork of this process; not if they take longer than `timeout`."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os._exit(pytest.main([*PYTEST, *tests]))
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def score(file: str, target: dict, root: Path, sample: int | None) -> tuple[int, int]:
    """Runs the mutants of one file and prints those that survive; how many were killed, of all.

    `sample` None: those by hand only; negative: as many more as the target says.
    """
    start = time.monotonic()
    if not tests_pass(root, target["tests"], 600):
        print((root / OUTPUT).read_text(encoding="utf-8"))
        sys.exit(f"{file}: its tests must pass before anything is changed")
    usual = time.monotonic() - start
    path, killed, count = root / file, 0, 0
    mutants = list(by_hand(path, target.get("mutants", [])))
    if sample is not None and not target.get("by_hand_only"):
        mutants += by_operators(path, target.get("sample", 40) if sample < 0 else sample)
    for mutant in mutants:
        with mutant.apply:
            survived = tests_pass(root, target["tests"], 20 + 4 * usual)
        count, killed = count + 1, killed + (not survived)
        if survived:
            print(f"  SURVIVED {mutant.text}", flush=True)
    print(f"{file}: {killed} of {count} mutants killed ({killed / count:.0%})", flush=True)
    return killed, count


def main() -> None:
    """Mutates the files asked for, all of targets.toml by default, and prints a score."""
    # Python would take a mutant as long as the original, in the same second, for the original.
    sys.dont_write_bytecode = True
    parser = argparse.ArgumentParser(description="Mutation run; see the top of this file.")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sample", type=int, default=-1, help="mutants per file; 0 is all")
    parser.add_argument("--by-hand", action="store_true", help="only mutants of targets.toml")
    chosen = parser.parse_args()
    targets = tomllib.loads((HERE / "targets.toml").read_text(encoding="utf-8"))
    unknown = [file for file in chosen.files if file not in targets]
    if unknown:
        sys.exit(f"{unknown[0]} is not in tests/mutation/targets.toml; name the tests that see it")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    top = HERE.parents[1]
    with tempfile.TemporaryDirectory() as folder:
        for name in subprocess.check_output(listed, cwd=top, text=True).splitlines():
            copy = Path(folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (top / name).is_file():
                shutil.copy2(top / name, copy)
        scores = [
            score(file, targets[file], Path(folder), None if chosen.by_hand else chosen.sample)
            for file in chosen.files or targets
        ]
    killed, count = map(sum, zip(*scores, strict=True))
    print(f"{killed} of {count} mutants killed ({killed / count:.0%})")


if __name__ == "__main__":
    main()

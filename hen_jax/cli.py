"""The `hen` command. Only `argparse` loads before a verb is chosen: `--help` answers at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hen_jax.commands import VERBS

EPILOG = """\
examples:
  hen import smollm2-135m models/smollm2-135m
  hen run --config=sft:tiny --workdir=runs/tiny
  hen generate --model models/smollm2-135m --prompt "My scooter broke down in the rain."
  hen export --run runs/tiny --format peft --out exports/tiny
  hen serve --model models/smollm2-135m --expert mine=exports/tiny
"""

CLOSED = 141
"""Exit code when nobody reads the output any more, as of a command that SIGPIPE ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; 0 when it succeeded, 2 for bad input, which is told in one line.

    2 also for a full disk and for Ctrl-C; 75 when a run was asked to stop and can go on; 76 when
    another process of the run was lost (see `core.errors.told`); `CLOSED`, without a word, when the
    output is a pipe that was closed, as by `hen config sft | head -1`.
    """
    from hen_jax.core.pipes import output_is_closed

    try:
        code = _command(sys.argv[1:] if arguments is None else list(arguments))
    except SystemExit:  # of `--help`
        output_is_closed()
        raise
    return CLOSED if output_is_closed() else code


def _command(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(_version())
        return 0
    parser = _parser()
    chosen, overrides = parser.parse_known_args(words)
    strange = [word for word in overrides if not word.startswith("--config.")]
    if strange or (overrides and not chosen.takes_config):
        bare = [word for word in overrides if word.startswith("--config.") and "=" not in word]
        remedy = f"; give its value with '=': {bare[0]}={strange[0]}" if bare and strange else ""
        parser.error(f"unrecognized arguments: {' '.join(strange or overrides)}{remedy}")
    from hen_jax.core.errors import told
    from hen_jax.core.pipes import output_is_closed

    # transformers would advise every user to install torch, of which hen_jax needs nothing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    _leave_out_absent_tpu()
    try:
        return chosen.verb(chosen, overrides) or 0
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and output_is_closed(write_failed=True):
            return CLOSED
        expected = told(error)
        if expected is None:
            raise
        print(f"hen: {expected.line}", file=sys.stderr)
        return expected.code


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"{package} not installed"

    return f"{of('hen_jax')}, {of('jax')}, Python {sys.version.split()[0]}"


def _leave_out_absent_tpu() -> None:
    """Where libtpu is installed for `hen plan` alone, it must not complain of missing chips."""
    if "JAX_PLATFORMS" in os.environ or not find_spec("libtpu"):
        return
    gpus = any(map(find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))
    tpus = any(Path("/dev").glob("accel*")) or Path("/dev/vfio").exists()
    if not gpus and not tpus:
        os.environ["JAX_PLATFORMS"] = "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hen",
        description="Teaches language models context-calibrated empathy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="of hen_jax, jax and Python")
    parser.set_defaults(takes_config=False)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for add in VERBS:
        add(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())

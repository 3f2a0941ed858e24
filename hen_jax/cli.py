"""The `hen` command. Only `argparse` loads before a verb is chosen: `--help` answers at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hen_jax import commands
from hen_jax.flags import add_columns, add_endpoint, add_judge_flags, add_speaker

EPILOG = """\
examples:
  hen import smollm2-135m models/smollm2
  hen run --config=sft:tiny --workdir=runs/tiny
  hen generate --model models/smollm2 --prompt "My scooter broke down in the rain."
  hen export --run runs/tiny --format peft --out exports/tiny
"""

CONFIG_HELP = "a built-in name (sft, sft:tiny; `hen config` lists them), FILE.py or FILE.py:VARIANT"


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
    if strange or (overrides and chosen.verb not in commands.OF_A_CONFIG):
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
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    _add_config_verbs(verbs)
    _add_model_verbs(verbs)
    _add_judge_verb(verbs)

    verb = verbs.add_parser("doctor", help="devices, versions, network, cache; exit 2 if not well")
    verb.add_argument("--dry", action="store_true", help="do not connect to other processes")
    verb.set_defaults(verb=commands.doctor_verb)

    data = verbs.add_parser("data", help="look into a data file before training on it")
    _add_data_verbs(data.add_subparsers(required=True, metavar="VERB"))
    return parser


def _add_config_verbs(verbs: Any) -> None:
    verb = verbs.add_parser("run", help="run a recipe; again, to go on where it stopped")
    verb.add_argument("--config", required=True, help=CONFIG_HELP)
    verb.add_argument("--workdir", type=Path, help="where everything is written")
    verb.add_argument("--print-config", action="store_true", help="every field; nothing is run")
    verb.add_argument(
        "--profile",
        type=int,
        nargs="?",
        const=5,
        metavar="UPDATES",
        help="a profiler's trace of so many updates (5), in profile/ of the work directory",
    )
    verb.epilog = "Set any field: --config.optimizer.learning_rate=1e-4 (docs/settings.md)"
    verb.set_defaults(verb=commands.run_verb)

    verb = verbs.add_parser("config", help="the built-in configs, or every field of one")
    verb.add_argument("config", nargs="?", help=CONFIG_HELP)
    verb.set_defaults(verb=commands.config_verb)

    verb = verbs.add_parser("plan", help="does it fit, how fast could it be; needs no accelerator")
    verb.add_argument("--config", required=True, help=CONFIG_HELP)
    verb.add_argument("--topology", required=True, help="such as v5e:4x4, v5p:2x2x4 or h100:8")
    verb.add_argument("--stage", help="one stage of the config (default: all)")
    verb.add_argument("--json", type=Path, help="write the plan there too")
    verb.add_argument("--search", action="store_true", help="try meshes and microbatches")
    verb.epilog = "Set any field: --config.microbatches=2"
    verb.set_defaults(verb=commands.plan_verb)

    verb = verbs.add_parser("show", help="one example, with the tokens that train set apart")
    verb.add_argument("--config", help=f"{CONFIG_HELP} of a run")
    verb.add_argument("--model", type=Path, help="instead: a model folder, with --data, --schema")
    verb.add_argument("--data", type=Path, help="a data file")
    verb.add_argument("--schema", help="of the data file")
    add_columns(verb)
    verb.add_argument("--example", type=int, default=1, help="which of the train part, from 1")
    verb.add_argument("--no-color", action="store_true", help="marks what trains with brackets")
    verb.set_defaults(verb=commands.show_verb)


def _add_model_verbs(verbs: Any) -> None:
    verb = verbs.add_parser("import", help="bring a model into a Hugging Face folder")
    verb.add_argument("source", help="smollm2-135m, tiny, a folder, a .gguf file or a hub id")
    verb.add_argument("out", type=Path, help="a folder that does not exist yet")
    verb.add_argument("--dtype", help="float32, bfloat16 or float16 (default: as stored)")
    verb.set_defaults(verb=commands.import_verb)

    verb = verbs.add_parser("generate", help="reply to prompts")
    add_speaker(verb)
    add_endpoint(verb)
    verb.add_argument("--prompt", action="append", default=[], help="repeat for a batch")
    verb.add_argument("--messages", type=Path, help="or a JSON file with one conversation")
    verb.add_argument("--input", type=Path, help="or a file of prompt or messages, with --out")
    verb.add_argument("--out", type=Path, help="a line per reply, in order; goes on where it was")
    verb.add_argument("--n", type=int, default=1, help="replies to each prompt")
    verb.add_argument("--json", action="store_true", help="print replies as JSON lines")
    verb.add_argument("--raw", action="store_true", help="continue the text; no chat format")
    verb.set_defaults(verb=commands.generate_verb)

    verb = verbs.add_parser("chat", help="talk to a model in the terminal; /help there")
    add_speaker(verb)
    add_endpoint(verb)
    verb.set_defaults(verb=commands.chat_verb)

    verb = verbs.add_parser("score", help="what a reward model gives each reply of a file")
    verb.add_argument("--model", required=True, type=Path, help="a folder; of a reward model")
    verb.add_argument("--adapter", type=Path, help="or a PEFT adapter with a score head for it")
    verb.add_argument("--input", required=True, type=Path, help="pairs or conversations")
    verb.add_argument("--schema", required=True, help="preference, messages, completion, ...")
    verb.add_argument("--out", required=True, type=Path, help="a line per record, in its order")
    verb.add_argument("--batch-size", type=int, default=8, help="rows at a time on each device")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_columns(verb)
    verb.set_defaults(verb=commands.score_verb)

    verb = verbs.add_parser("export", help="write a run's weights for other tools")
    verb.add_argument("--run", required=True, type=Path, help="the --workdir of a run")
    formats = ("hf", "peft", "gguf", "gguf-lora")
    verb.add_argument("--format", required=True, choices=formats, help="gguf is llama.cpp's")
    verb.add_argument("--out", required=True, type=Path, help="a new folder; of GGUF, a .gguf file")
    dtypes = "float32, bfloat16 or float16 (default: the run's); gguf: q8_0 too"
    verb.add_argument("--dtype", help=dtypes)
    verb.add_argument("--base-model", help="hub id OWNER/NAME of the base, where not recorded")
    verb.add_argument("--expert", help="which one, of a run that trained several")
    verb.set_defaults(verb=commands.export_verb)


def _add_judge_verb(verbs: Any) -> None:
    verb = verbs.add_parser("judge", help="grade, compare or rank replies by a language model")
    add_judge_flags(verb)
    add_columns(verb)
    verb.set_defaults(verb=commands.judge_verb)


def _add_data_verbs(verbs: Any) -> None:
    schema = "hed, steered, messages, preference, ...; `hen data schemas` explains all"
    verb = verbs.add_parser("validate", help="list every bad record; exit 1 if there is one")
    verb.add_argument("file", type=Path)
    verb.add_argument("--schema", required=True, help=schema)
    verb.add_argument("--out", type=Path, help="folder for good.jsonl and quarantine.jsonl")
    add_columns(verb)
    verb.set_defaults(verb=commands.validate_verb)

    verb = verbs.add_parser("schemas", help="the columns of each schema with examples, as Markdown")
    verb.set_defaults(verb=commands.schemas_verb)

    verb = verbs.add_parser("stats", help="tokens, labels, lengths, duplicates, give-away cues")
    verb.add_argument("file", type=Path)
    verb.add_argument("--schema", required=True, help=schema)
    verb.add_argument("--out", type=Path, help="folder for the figures and stats.json")
    verb.add_argument("--model", type=Path, help="model folder whose tokenizer counts tokens")
    add_columns(verb)
    verb.set_defaults(verb=commands.stats_verb)

    verb = verbs.add_parser("scrub", help="mask e-mail addresses, telephone and ID numbers")
    verb.add_argument("file", type=Path)
    verb.add_argument("--out", required=True, type=Path, help="the masked file")
    verb.set_defaults(verb=commands.scrub_verb)

    verb = verbs.add_parser("ratings", help="people's ratings or choices: agreement, soft labels")
    verb.add_argument("files", nargs="*", type=Path, help="of votes: CSV, JSON lines, Excel, ...")
    verb.add_argument("--kind", required=True, choices=("ratings", "choices"))
    verb.add_argument("--items", type=Path, help="what was rated; choices: pairs")
    verb.add_argument("--export-items", type=Path, help="instead: write these as blind sheets")
    verb.add_argument("--schema", required=True, help=f"of the items: {schema}")
    verb.add_argument("--out", required=True, type=Path, help="folder for labels, or for sheets")
    verb.add_argument("--key", type=Path, help="which item a name on a sheet is; keep it apart")
    verb.add_argument("--sheets", type=int, default=2, help="how many, one for each annotator")
    verb.add_argument("--scale", nargs=2, type=float, default=(1, 5), metavar=("LOW", "HIGH"))
    verb.add_argument("--annotators", nargs="+", default=[], help="columns of a wide file")
    verb.add_argument(
        "--weights", choices=("equal", "dawid_skene", "bradley_terry"), default="equal"
    )
    verb.add_argument("--no-agreement", action="store_true", help="take votes as they are")
    verb.add_argument("--seed", type=int, default=0, help="of orders, or of the bootstrap")
    add_columns(verb)
    verb.set_defaults(verb=commands.ratings_verb)

    verb = verbs.add_parser("sense7", help="desired against perceived empathy of a workbook")
    verb.add_argument("file", type=Path, help=".xlsx or .jsonl with the SENSE-7 columns")
    verb.add_argument("--out", required=True, type=Path, help="folder for the report")
    verb.add_argument("--contexts", type=Path, help="JSON: name of a task -> context")
    verb.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    verb.set_defaults(verb=commands.sense7_verb)


if __name__ == "__main__":
    sys.exit(main())

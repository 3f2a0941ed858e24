"""The verbs that open files, what must be made before, and what each of them gives."""

import contextlib
import io
import json
import shutil
import signal
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recordings import EVALUATE, GENERATE, JUDGE, TIMED, record_all
from robust_outcomes import files, trained

CONFIGS = Path(__file__).parents[2] / "configs"
LONGEST = 300
"""Seconds after which a verb counts as one that hangs."""

SPEED = "compilation included"
"""In the line of `hen generate` that tells its speed."""


class Done(NamedTuple):
    """How a verb ended; `code` None is a traceback or a hang."""

    code: int | None
    said: str


class Opening(NamedTuple):
    """A verb that opens files; `{home}` in its words is filled in."""

    shown: str  # in the table
    words: tuple[str, ...]
    needs: tuple[str, ...]  # of `MADE`, in order
    given: Callable[[Path, Done], Any]


def type_(words: Sequence[str]) -> Done:
    """The command, in this process."""
    from hen_jax import cli

    def hangs(*_: object) -> None:
        raise TimeoutError(f"not done after {LONGEST} s")

    said = io.StringIO()
    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LONGEST)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(list(words))
    except BaseException:
        return Done(None, said.getvalue() + traceback.format_exc())
    finally:
        signal.alarm(0)
    return Done(code, said.getvalue())


def words_of(words: Iterable[str], home: Path) -> list[str]:
    """What is typed."""
    return [word.replace("{home}", str(home)) for word in words]


def make(names: Iterable[str], home: Path) -> None:
    """What the verbs need, each with all that it needs itself."""
    for name in names:
        if (home / name).exists():
            continue
        needs, how = MADE[name]
        make(needs, home)
        if callable(how):
            how(home)
            continue
        done = type_(words_of(how, home))
        if done.code != 0:
            raise SystemExit(f"{how}: {done.said}")


def _run(config: str, *fields: str, out: str) -> tuple[str, ...]:
    words = (f"--config={CONFIGS / config}.py:tiny", "--config.model.source={home}/model")
    given = (f"--config.{field}" for field in fields)
    return ("run", *words, f"--workdir={{home}}/{out}", *given)


def _export(run: str, out: str, form: str) -> tuple[str, ...]:
    return ("export", f"--run={{home}}/{run}", f"--out={{home}}/{out}", "--format", form)


def _write_gguf(home: Path) -> None:
    from tiny_gguf import write_gguf

    write_gguf(home / "tiny.gguf")


def _write_chats(home: Path) -> None:
    said = [{"role": "user", "content": "It rains."}, {"role": "assistant", "content": "Oh."}]
    path = home / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": said * n}) + "\n" for n in (1, 2)))


def _write_story(home: Path) -> None:
    """A run's folder with replies and the figures of an evaluation."""
    shutil.copytree(home / "run", home / "story")
    done = type_(words_of((*EVALUATE, "--out={home}/story/evaluate"), home))
    if done.code != 0:
        raise SystemExit(f"evaluate: {done.said}")


SFT = _run(
    "sft", "adapter.rank=2", "epochs=0.2", "data.batch_size=8", "loop.checkpoint_every=4", out="run"
)
SHORT = ("epochs=0.05", "loop.evaluators=()")
PIPELINE = (
    "run", f"--config={Path(__file__).with_name('steps.py')}", "--stage=sft",
    "--config.model.source={home}/model", "--workdir={home}/pipeline",
)  # fmt: skip
MADE: Mapping[str, tuple[tuple[str, ...], Any]] = {
    "model": ((), ("import", "tiny", "{home}/model")),
    "run": (("model",), SFT),
    "peft": (("run",), _export("run", "peft", "peft")),
    "reward-run": (("model",), _run("reward", *SHORT, out="reward-run")),
    "reward": (("reward-run",), _export("reward-run", "reward", "hf")),
    "rating-run": (("model",), _run("regression", *SHORT, out="rating-run")),
    "rating": (("rating-run",), _export("rating-run", "rating", "hf")),
    "routed": (("model",), _run("router", "updates=5", out="routed")),
    "tiny.gguf": ((), _write_gguf),
    "chats.jsonl": ((), _write_chats),
    "said": ((), record_all),
    "story": (("run", "said"), _write_story),
    "pipeline": (("model",), PIPELINE),
    "judged": (("said",), (*JUDGE, "--out={home}/judged")),
    "evaluated": (("said",), (*EVALUATE, "--out={home}/evaluated")),
}
"""What can be made: what it needs, and the command or the function that makes it."""


def _lines(_: Path, done: Done) -> list[str]:
    return [line for line in done.said.splitlines() if SPEED not in line]


def _run_of(folder: str) -> Callable[[Path, Done], Any]:
    return lambda home, _: trained(home / folder)


def _out(home: Path, _: Done) -> dict[str, str]:
    """What was written, less what tells the time or stood there before."""
    return {name: value for name, value in files(home / "out").items() if name not in TIMED}


def _judged(home: Path, _: Done) -> dict[str, str]:
    """The verdicts and what follows; the judge's name holds the checksum of its recording."""
    return {name: value for name, value in _out(home, _).items() if name != "calls.jsonl"}


def _score(folder: str) -> Opening:
    words = ("score", f"--model={{home}}/{folder}", "--input={home}/chats.jsonl")
    words += ("--schema=messages", "--out={home}/out/scores.jsonl")
    return Opening("`hen score`", words, (folder, "chats.jsonl"), _out)


SPEAK = (
    "generate", "--model={home}/model", "--prompt", "It rains.", "--temperature", "0",
    "--max-new-tokens", "4",
)  # fmt: skip
ROUTE = ("route", "--router={home}/routed/router", "--prompt", "It rains.")
OPENINGS: Mapping[str, Opening] = {
    "generate": Opening("`hen generate`", SPEAK, ("model",), _lines),
    "adapter": Opening(
        "`hen generate`, adapted", (*SPEAK, "--adapter={home}/peft"), ("peft",), _lines
    ),
    "export": Opening("`hen export`", _export("run", "out", "peft"), ("run",), _out),
    "run": Opening("`hen run`", SFT, ("run",), _run_of("run")),
    "score": _score("reward"),
    "rate": _score("rating"),
    "import": Opening(
        "`hen import`", ("import", "{home}/tiny.gguf", "{home}/out"), ("tiny.gguf",), _out
    ),
    "replay": Opening(
        "`hen generate`, replayed", (*GENERATE, "--out={home}/out/replies.jsonl"), ("said",), _out
    ),
    "judge": Opening(
        "`hen judge`, replayed", (*JUDGE, "--out={home}/out"), ("said",), _judged
    ),
    "evaluate": Opening(
        "`hen evaluate`, replayed", (*EVALUATE, "--out={home}/out"), ("said",), _judged
    ),
    "judge again": Opening(
        "`hen judge`", (*JUDGE, "--out={home}/judged"), ("judged",), _lines
    ),
    "evaluate again": Opening(
        "`hen evaluate`", (*EVALUATE, "--out={home}/evaluated"), ("evaluated",), _lines
    ),
    "report": Opening(
        "`hen report`", ("report", "{home}/story", "--out={home}/out/report.html"), ("story",),
        _out,
    ),
    "route": Opening("`hen route`", ROUTE, ("routed",), _lines),
    "pipeline": Opening("`hen run`, a pipeline", PIPELINE, ("pipeline",), _run_of("pipeline/sft")),
}  # fmt: skip
"""By a name of ours."""


def outcome(name: str, home: Path) -> Any:
    """What a verb that ended well has given, to be compared."""
    opening = OPENINGS[name]
    shutil.rmtree(home / "out", ignore_errors=True)
    done = type_(words_of(opening.words, home))
    if done.code != 0:
        raise SystemExit(f"{name} of what is sound: {done.said}")
    return opening.given(home, done)

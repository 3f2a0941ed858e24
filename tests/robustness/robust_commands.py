"""The commands that are killed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from recordings import EVALUATE, GENERATE, JUDGE, SYNTHESIZE, TIMED
from robust_outcomes import files, trained

ROOT = Path(__file__).parents[2]


class Command(NamedTuple):
    """What is killed; `{home}` and `{out}` in its words are filled in."""

    name: str
    share: int  # of the kills, in 80
    words: tuple[str, ...]
    result: Callable[[Path], Any]
    processes: int = 1
    exchanges: bool = False  # every other time, an output of before is in its place


def _stage(name: str) -> tuple[str, ...]:
    words = (f"--config={ROOT / 'configs' / name}.py:tiny", "--workdir={out}")
    return ("run", *words, "--config.loop.checkpoint_every=2")


def _told(folder: Path) -> dict[str, str]:
    return {name: value for name, value in files(folder).items() if name not in TIMED}


def _pipeline(workdir: Path) -> dict[str, Any]:
    return {name: trained(workdir / name) for name in ("sft", "reward")}


PIPELINE = (
    "run",
    f"--config={Path(__file__).with_name('steps.py')}",
    "--workdir={out}",
)
SFT = (
    "run",
    f"--config={ROOT / 'configs' / 'sft.py'}:tiny",
    "--workdir={out}",
    "--config.epochs=0.4",
    "--config.data.batch_size=8",
    "--config.loop.checkpoint_every=3",
)
EMCL = (
    "run",
    f"--config={ROOT / 'configs' / 'emcl.py'}:tiny",
    "--workdir={out}",
    "--config.steps=8",
    "--config.loop.checkpoint_every=2",
)
REWARD = (
    "run",
    f"--config={ROOT / 'configs' / 'reward.py'}:tiny",
    "--workdir={out}",
    "--config.epochs=0.1",
    "--config.loop.checkpoint_every=2",
    "--config.loop.evaluators=()",
)
PREFERENCE = (
    *_stage("preference"),
    "--config.epochs=0.05",
    "--config.loop.evaluators=()",
)
POLICY = (
    *_stage("policy"),
    "--config.epochs=0.1",
    "--config.rollout.replies=2",
    "--config.rollout.max_new_tokens=4",
    "--config.data.batch_size=4",
    "--config.data.held_out=2",
)
EXPERTS = (*_stage("experts"), "--config.epochs=0.08")
ROUTER = (*_stage("router"), "--config.updates=10")
REGRESSION = (*_stage("regression"), "--config.epochs=0.4", "--config.loop.evaluators=()")
EXPORT = ("export", "--run={home}/run", "--out={out}", "--format")

COMMANDS = (
    Command("`hen run`, SFT", 12, SFT, trained),
    Command("`hen run`, EMCL", 6, EMCL, trained),
    Command("`hen run`, reward", 6, REWARD, trained),
    Command("`hen run`, SFT, 2 processes x 4 devices", 6, SFT, trained, processes=2),
    Command("`hen run`, preference", 2, PREFERENCE, trained),
    Command("`hen run`, policy", 2, POLICY, trained),
    Command("`hen run`, experts", 2, EXPERTS, trained),
    Command("`hen run`, router", 2, ROUTER, trained),
    Command("`hen run`, regression", 2, REGRESSION, trained),
    Command("`hen run`, a pipeline", 2, PIPELINE, _pipeline),
    Command("`hen export`, hf", 7, (*EXPORT, "hf"), files, exchanges=True),
    Command("`hen export`, peft", 5, (*EXPORT, "peft"), files, exchanges=True),
    Command("`hen import FOLDER`", 5, ("import", "{home}/model", "{out}"), files, exchanges=True),
    Command(
        "`hen import FILE.gguf`", 5, ("import", "{home}/tiny.gguf", "{out}"), files, exchanges=True
    ),
    Command("`hen generate`, replayed", 4, (*GENERATE, "--out={out}/replies.jsonl"), files),
    Command("`hen judge`, replayed", 4, (*JUDGE, "--out={out}"), _told),
    Command("`hen evaluate`, replayed", 4, (*EVALUATE, "--out={out}"), _told),
    Command("`hen synthesize`, replayed", 4, (*SYNTHESIZE, "--out={out}"), _told),
)

"""Who else is told the numbers of a run: TensorBoard, W&B, trackio, MLflow, by name.

`metrics.jsonl` is always written, by `training.metrics`: a run that goes on reads it. Another
tracker is one function here, or anywhere, and an entry in `TRACKERS`.
"""

import importlib
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, set_aside, write_json
from hen_jax.core.shapes import checked_shape


class Tracker(NamedTuple):
    """An open tracker: where figures go, and how it is closed."""

    write: Callable[[int, Mapping[str, float]], None]  # step, `{"train/loss": 1.9, ...}`
    close: Callable[[], None]


ID_FILE = "tracker_id.json"
"""In the work directory: the id of the run at the trackers."""

HOSTED = ("wandb", "trackio", "mlflow")
"""Those that are packages of their own."""

Open = Callable[[Path, int], Tracker]
"""`open(folder, start)`: the work directory, and the step from which the run goes on."""


def tensorboard(folder: Path, start: int) -> Tracker:
    """Event files in `tensorboard/`; what a killed run wrote after `start` is purged."""
    from hen_jax.training.board import Board  # tensorboardX takes a while to load

    board = Board(folder / "tensorboard", start + 1)

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            board.add(name, value, step)

    return Tracker(write, board.close)


def wandb(folder: Path, start: int) -> Tracker:
    """Weights & Biases; project, entity and mode are those of its environment variables."""
    return _hosted(_imported("wandb"), folder, {"id": _identity(folder), "dir": str(folder)})


def trackio(folder: Path, start: int) -> Tracker:
    """Trackio, a local dashboard with the calls of Weights & Biases."""
    name = f"{folder.name}-{_identity(folder)}"
    return _hosted(_imported("trackio"), folder, {"project": "hen_jax", "name": name})


def mlflow(folder: Path, start: int) -> Tracker:
    """MLflow; server and experiment are those of its environment variables.

    MLflow names a run itself: its id is kept beside ours, and the run goes on under it.
    """
    module, ours = _imported("mlflow"), _identity(folder)
    known = _ids(folder).get("mlflow")
    began = module.start_run(run_id=known, run_name=f"{folder.name}-{ours}")
    write_json(folder / ID_FILE, {"id": ours, "mlflow": began.info.run_id})

    def write(step: int, values: Mapping[str, float]) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        module.log_metrics(finite, step=step)  # a database refuses NaN

    return Tracker(write, module.end_run)


TRACKERS: dict[str, Open] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "trackio": trackio,
    "mlflow": mlflow,
}
"""Name in `config.loop.trackers` -> what opens it."""


def require_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker that is not known or not installed; imports none.

    Raises:
      InputError: names it.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"config.loop.trackers names {name!r}; allowed: {', '.join(TRACKERS)}")
        if name in HOSTED and find_spec(name) is None:
            raise InputError(_absent(name))


def open_trackers(names: Sequence[str], folder: Path, start: int) -> list[Tracker]:
    """The trackers of those names.

    Raises:
      InputError: as `require_trackers`.
    """
    require_trackers(names)
    return [TRACKERS[name](folder, start) for name in names]


def _hosted(module: Any, folder: Path, named: dict[str, str]) -> Tracker:
    module.init(resume="allow", **named)
    return Tracker(lambda step, values: module.log(dict(values), step=step), module.finish)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{_absent(name)} ({error})") from None


def _absent(name: str) -> str:
    return (
        f"config.loop.trackers names {name!r}, which is not installed; `pip install {name}`, or "
        "leave it out"
    )


def _identity(folder: Path) -> str:
    """The id of a run at the trackers, the same when it goes on, also in a folder moved since."""
    known = _ids(folder)
    if not known:
        known = {"id": secrets.token_hex(4)}
        write_json(folder / ID_FILE, known)
    return known["id"]


def _ids(folder: Path) -> dict[str, str]:
    """What the id file says; nothing where it is not there, or damaged and so set aside."""
    path = folder / ID_FILE
    if not path.exists():
        return {}
    try:
        return checked_shape(read_json(path), _IDS, path, "the run is another one to its trackers")
    except InputError as error:
        set_aside(path, error)
        return {}


_IDS = {"id": str, "mlflow?": str}

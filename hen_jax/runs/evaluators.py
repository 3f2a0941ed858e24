"""What looks at a run while it trains, by the names in `config.loop.evaluators`.

Another evaluator is a function `evaluator(job)(state) -> {name: number}` in a stage's `evaluators`,
or here; what it writes besides goes to the work directory.
"""

import statistics
from collections.abc import Callable, Mapping

import jax

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.runs.replies import greedy_chat, held_out_prompts, questions
from hen_jax.runs.stage import Job, Stage
from hen_jax.steps.state import State
from hen_jax.training.loop import Evaluator, LoopConfig

_Build = Callable[[Job], Evaluator]


def replies(job: Job) -> Evaluator:
    """Greedy replies to held-out prompts, in `replies/STEP.json`; their mean length in tokens, and
    the share that ended by itself.

    Raises:
      InputError: among several processes.
    """
    if jax.process_count() > 1:
        raise InputError(
            "config.loop.evaluators: 'replies' is for one process; leave it out on several"
        )
    settings, model = job.settings, job.model
    asked = held_out_prompts(settings.sources)
    greedy = greedy_chat(model.config, job.tokenizer, settings.adapter)

    def look(state: State) -> dict[str, float]:
        own = {name: state.params[name] for name in job.trainable}  # not what a stage adds
        made = greedy(own, job.frozen)(questions(asked))
        path = job.workdir / "replies" / f"{int(state.step)}.json"
        path.parent.mkdir(exist_ok=True)
        told = zip(asked, made, strict=True)
        write_json(path, [{"id": document.id, "reply": one.text} for document, one in told])
        return {
            "tokens": statistics.fmean(one.tokens or 0 for one in made),
            "stopped": statistics.fmean(one.stopped for one in made),
        }

    return look


EVALUATORS: dict[str, _Build] = {"replies": replies}
"""Those that work for any stage that trains a language model."""


def require_evaluators(stage: Stage, config: LoopConfig) -> None:
    """Raises `InputError` for a name that neither the stage nor this module has."""
    known = _known(stage)
    for name in config.evaluators:
        if name not in known:
            allowed = ", ".join(known) or "none with this recipe"
            raise InputError(f"config.loop.evaluators names {name!r}; allowed: {allowed}")


def named_evaluators(job: Job) -> dict[str, Evaluator]:
    """The evaluators that the config of a run names, ready."""
    known = _known(job.stage)
    return {name: known[name](job) for name in job.settings.loop.evaluators}


def _known(stage: Stage) -> Mapping[str, _Build]:
    return {**(EVALUATORS if stage.speaks else {}), **stage.evaluators}

"""Meta-curriculum learning (EMCL) on labelled dialogues: the EMCL stage of HEN."""

from functools import partial

import grain
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hen_jax.curricula.emcl import emcl_step, init_memory
from hen_jax.curricula.evaluations import outer_updates
from hen_jax.curricula.learnt import reply_features
from hen_jax.curricula.shared import evaluation, require_gradient
from hen_jax.models.config import DecoderConfig
from hen_jax.planning.search import Change
from hen_jax.recipes.changes import replaced
from hen_jax.recipes.curriculum_plot import draw_curriculum
from hen_jax.recipes.emcl_data import EpisodeBounds, episode_bounds, read_tasks
from hen_jax.recipes.emcl_episodes import abstract_episode, draw_episode, put_episode
from hen_jax.recipes.emcl_settings import EmclSettings, check, step_flops
from hen_jax.runs.stage import Feed, Job, Load, Stage, Work, guarded
from hen_jax.steps.aligned import adapter_row_sums
from hen_jax.steps.sft import sft_loss
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.checkpoints import saved_steps
from hen_jax.training.loop import Prepare
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.processes import Share, primary_first

PLANNED_EXAMPLES = 100_000
"""Whose visits `reweight` remembers in a plan: a megabyte or so."""


def feed(settings: EmclSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """Episodes, which every process draws whole."""
    found = read_tasks(settings, tokenizer)
    print(f"{settings.emcl.curriculum}: {settings.gradients().sum():,.0f} gradients of a row")
    numbers = grain.MapDataset.range(settings.steps)
    draw = partial(draw_episode, settings)
    drawn = numbers.map(lambda number: draw(found.train, found.meta, settings.seed, int(number)))
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    held_out = range(settings.episode.held_out)
    return Feed(
        steps=settings.steps,
        bounds=episode_bounds(found),
        batches=iter(drawn.to_iter_dataset(ahead)),
        # The same episodes of held-out statements whatever the seed of the run.
        held_out=lambda: (draw(found.valid, None, 0, number) for number in held_out),
    )


def work(
    settings: EmclSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: EpisodeBounds,
    steps: int,
) -> Work:
    """The curriculum's step.

    An optimizer makes several updates in a step; the schedule of the log is by step.
    """
    tasks, emcl = settings.tasks, settings.emcl
    updates = outer_updates(emcl, len(tasks), settings.steps)
    schedule = make_schedule(settings.optimizer, int(updates.sum()))
    done = np.concatenate([[0], updates.cumsum()])
    optimizer = guarded(settings, schedule)
    limits = bounds.trained, settings.logit_chunk
    loss, sums = sft_loss(graphdef, *limits), None
    if settings.adapter is not None:
        sums = adapter_row_sums(graphdef, settings.adapter, *limits)
    features = reply_features(graphdef)
    return Work(
        step=emcl_step(emcl, loss, optimizer, tasks, settings.steps, features, sums),
        optimizer=optimizer,
        schedule=lambda number: schedule(jnp.asarray(done)[number]),
        score=evaluation(emcl, loss, tasks),
        memory=lambda key: init_memory(emcl, tasks, key, config.width + 1, bounds.examples),
    )


def load(settings: EmclSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """An episode of full rows."""
    drawn, steps = settings.episode, settings.emcl.inner_steps
    batch = abstract_episode(mesh, drawn, len(settings.tasks), steps)
    return Load(batch, EpisodeBounds(drawn.row_length, PLANNED_EXAMPLES))


def before(job: Job) -> None:
    """Raises `InputError` where the mode of the meta-gradient would be wrong for this loss."""
    if saved_steps(job.workdir / "checkpoints"):
        return
    settings: EmclSettings = job.settings
    loss = sft_loss(job.model.graphdef, job.feed.bounds.trained, settings.logit_chunk)
    put = partial(put_episode, job.mesh, settings.episode)
    require_gradient(
        settings.emcl, loss, job.trainable, job.frozen, lambda: put(next(job.feed.held_out()))
    )


def _prepare(job: Job) -> Prepare:
    put = partial(put_episode, job.mesh, job.settings.episode)
    return lambda state, frozen, batch: put(batch)


TASK_BY_TASK = Change(
    "emcl.parallel_tasks=False", partial(replaced, group="emcl", parallel_tasks=False)
)

STAGE = Stage(
    settings=EmclSettings,
    feed=feed,
    work=work,
    load=load,
    flops=step_flops,
    summary=lambda one: f"meta-curriculum learning ({one.emcl.curriculum}, {one.steps} steps)",
    prepare=_prepare,
    check=check,
    before=before,
    after=lambda job: primary_first(lambda: draw_curriculum(job.workdir, job.settings.tasks)),
    changes=(TASK_BY_TASK,),
)

"""Episodes, drawn and laid on the mesh."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH
from hen_jax.core.types import Array
from hen_jax.data.episodes import Episode, Examples, episode, episode_batches
from hen_jax.recipes.emcl_settings import EmclSettings, EpisodeSettings
from hen_jax.runs.abstract import abstract_batch


def draw_episode(
    settings: EmclSettings, examples: Examples, queries: Examples | None, seed: int, number: int
) -> Episode:
    """The episode of that number, with a batch of support for each inner step."""
    drawn, steps = settings.episode, settings.emcl.inner_steps
    rows = steps * drawn.support_rows, drawn.query_rows
    draws = episode(examples, seed, number, *rows, held_out=queries)
    return episode_batches(
        examples, draws, steps=steps, row_length=drawn.row_length, held_out=queries
    )


def abstract_episode(mesh: Mesh, settings: EpisodeSettings, tasks: int, steps: int) -> Episode:
    """The shapes and shardings of what `put_episode` gives."""
    support, query = _specs(settings)
    length = settings.row_length
    rows = abstract_batch((tasks, steps, settings.support_rows), length, mesh, tuple(support))
    return Episode(
        rows._replace(example=rows.task),
        abstract_batch((tasks, settings.query_rows), length, mesh, tuple(query)),
    )


def put_episode(mesh: Mesh, settings: EpisodeSettings, drawn: Episode) -> Episode:
    """The episode on the mesh: tasks over `task_axis` if any, rows over the other batch axes.

    Every process draws the same episode and keeps what its devices hold.

    Raises:
      InputError: rows or tasks that do not divide over their mesh axes.
    """

    def put(leaf: Array, spec: PartitionSpec, side: str) -> Array:
        sharding = NamedSharding(mesh, spec)
        try:
            sharding.shard_shape(leaf.shape)
        except ValueError:
            raise InputError(
                f"the {side} of an episode has [tasks, ..., rows] = {leaf.shape[: len(spec)]}, "
                f"which do not divide over the mesh {dict(mesh.shape)}; give "
                f"config.episode.{side}_rows that do, or a smaller config.mesh"
            ) from None
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return Episode(
        *(
            jax.tree.map(lambda leaf, side=side, spec=spec: put(leaf, spec, side), batch)
            for side, spec, batch in zip(Episode._fields, _specs(settings), drawn, strict=True)
        )
    )


def _specs(settings: EpisodeSettings) -> tuple[PartitionSpec, PartitionSpec]:
    """How support and query lie on the mesh."""
    axis = settings.task_axis
    rows = tuple(name for name in BATCH if name != axis)
    return PartitionSpec(axis, None, rows), PartitionSpec(axis, rows)

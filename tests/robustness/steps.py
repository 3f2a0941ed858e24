"""A pipeline of two short stages, of which the second starts from the first."""

from ml_collections import ConfigDict

SHORT = ("data.batch_size=8", "loop.checkpoint_every=2", "loop.evaluators=()")
STAGES = (
    {"name": "sft", "config": "sft:tiny", "fields": (*SHORT, "epochs=0.1")},
    {
        "name": "reward",
        "config": "reward:tiny",
        "fields": (*SHORT, "epochs=0.05", "start=stage:sft"),
    },
)


def get_config() -> ConfigDict:
    """The pipeline; nothing is evaluated or exported."""
    fields = {"recipe": "pipeline", "seed": 0, "model": {"source": "tiny"}}
    return ConfigDict({**fields, "stages": STAGES, "suites": {"names": ()}})

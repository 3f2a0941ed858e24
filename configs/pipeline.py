"""The whole of HEN: SFT, reward models, EMCL, RL and experts from one base, then the report.

    hen run --config=pipeline:tiny --workdir=runs/hen-tiny

A random model, to see that everything works: about 2 minutes on 2 cores, the evaluation aside.
Held-out loss of SFT 7.61 -> 5.66, reward of RL 1.42 -> 2.91; the reward model stays at chance and
EMCL's 8 steps do not improve, and the report says so.

    hen run --config=pipeline --workdir=runs/hen

SmolLM2-135M with LoRA on the shipped English dialogues, in short runs: about 31 minutes of
processor time on 2 cores, at most 7.3 GB. Held-out loss of SFT 4.61 -> 3.73, of the experts
4.09 -> 3.71; the reward model and EMCL, of 7 and 4 updates, did not improve, and the report says
so. Given again it goes on where it was stopped, skips what is done, and makes anew what reads
something that changed:

    hen run --config=pipeline --workdir=runs/hen --config.sft.epochs=0.5
    hen run --config=pipeline --workdir=runs/hen --stage=report
    hen report runs/hen --out report.html
"""

from typing import Literal

from ml_collections import ConfigDict

HED = "sources=({'schema': 'hed', 'path': 'shipped:hed/hed.en.jsonl'},)"
CROSSINGS = "crossings=('role', 'personality', 'statement')"
REPLIES = "loop.evaluators=('replies',)"
REWARDS = (
    "rewards=({'kind': 'model', 'path': 'stage:reward/export/hf', 'calibration':"
    " 'stage:reward/reward.json'}, {'kind': 'length', 'low': LOW, 'high': HIGH})"
)
"""What RL is trained on: the reward model that this pipeline trained, and a rule on the length."""


def get_config(variant: Literal["small", "tiny"] = "small") -> ConfigDict:
    """`small` or `tiny`."""
    config = ConfigDict()
    config.recipe = "pipeline"
    config.seed = 0
    config.model = ConfigDict({"source": "smollm2-135m", "dtype": "float32"})
    config.stages = _small()
    config.suites = ConfigDict(
        {
            "names": ("high_context", "empathy", "perplexity"),
            "data": ("shipped:hed/hed.en.jsonl",),
            "limit": 2,
            "reward": "stage:reward/export/hf",
        }
    )
    config.exports = ("policy/hf", "policy/peft", "experts/peft")
    if variant == "tiny":
        config.model = ConfigDict({"source": "tiny"})
        config.stages = _tiny()
        config.suites.max_new_tokens = 24
        config.exports = ("policy/hf",)
    return config


def _small() -> tuple[dict, ...]:
    rewards = REWARDS.replace("LOW", "20").replace("HIGH", "160")
    return (
        _step(
            "sft",
            "sft",
            4,
            HED,
            REPLIES,
            "data={'row_length': 512, 'batch_size': 1, 'packing': 'shared_prefix'}",
            "optimizer.learning_rate=1.5e-3",
        ),
        _step(
            "reward",
            "reward",
            3,
            "start=stage:sft",
            HED,
            CROSSINGS,
            "data={'row_length': 512, 'batch_size': 8}",
            "optimizer.learning_rate=1e-3",
            "epochs=0.15",
        ),
        _step(
            "emcl",
            "emcl",
            3,
            "start=stage:sft",
            REPLIES,
            "steps=4",
            "episode={'support_rows': 1, 'query_rows': 1, 'row_length': 160, 'held_out': 2}",
            "optimizer.learning_rate=5e-4",
        ),
        _step(
            "policy",
            "policy",
            4,
            "start=stage:emcl",
            rewards,
            REPLIES,
            "data={'prompt_length': 256, 'batch_size': 2, 'held_out': 8}",
            "rollout={'replies': 4, 'max_new_tokens': 48, 'slots': 8}",
            "optimizer.learning_rate=3e-4",
            "epochs=0.04",
        ),
        _step("experts", "experts", 3, "start=stage:sft", "data.row_length=512", "epochs=0.1"),
    )


def _tiny() -> tuple[dict, ...]:
    rewards = REWARDS.replace("LOW", "1").replace("HIGH", "60")
    return (
        _step("sft", "sft:tiny", 0.5, REPLIES),
        _step("reward", "reward:tiny", 0.7, "start=stage:sft", HED, CROSSINGS, "plain=False"),
        _step("emcl", "emcl:tiny", 1, "start=stage:sft", REPLIES, "steps=8"),
        _step("policy", "policy:tiny", 1, "start=stage:emcl", rewards, REPLIES, "epochs=0.3"),
        _step("experts", "experts:tiny", 0.5, "epochs=0.5"),
    )


def _step(name: str, config: str, minutes: float, *fields: str) -> dict:
    return {"name": name, "config": config, "minutes": minutes, "fields": fields}

"""GRPO steps per second, rollout and update, ours against TRL's GRPOTrainer with PEFT.

    python benchmarks/grpo_vs_trl.py --model models/smollm2-135m

Each step draws `--replies` continuations of `--new` tokens to each of `--prompts` prompts of
`--length` token ids at temperature 1, rewards them by a rule that costs nothing, and makes one
update of the same LoRA (rank 16 on all linear layers) with AdamW, no KL, float32. No reply ends
early: ours has no stop token, theirs may not draw its own. Ours lays each prompt once for its
group; "unshared" lays it before each reply. Theirs runs with its default generation and with
transformers' continuous batching, with the whole batch at once and in halves that are accumulated,
without gradient checkpointing, which would cost it speed.

Seconds are those of a step, of which `rollout_s` is the drawing; the first step of both sides,
compilation included, is left out. `sampler_gap` is the largest difference between a log-probability
as it was drawn and as the update computes it.
"""

import time
from pathlib import Path
from typing import Any

import duel


def ours(task: dict) -> dict:
    """Steps through the parts of `hen_jax.recipes.policy`."""
    import numpy as np

    from hen_jax.training.metrics import fetch_metrics

    voice_of, update, state, frozen, lay = _prepared(task)
    rng, rollout_s, told = np.random.default_rng(0), [], {}

    def step() -> None:
        nonlocal state, told
        began = time.perf_counter()
        prompts = [np.asarray(one, np.int32) for one in task["prompt_ids"]]
        asked = [prompt for prompt in prompts for _ in range(task["replies"])]
        spoken = voice_of(state)(asked, rng.integers(0, 2**32, len(asked)).tolist())
        rollout_s.append(time.perf_counter() - began)
        state, metrics = update(state, frozen, lay(prompts, spoken))
        told = fetch_metrics(metrics)

    step()
    rollout_s.clear()
    found = duel.timed(step, task["repeats"])
    tokens = task["replies"] * len(task["prompt_ids"]) * task["new"]
    return found | {
        "amount": tokens,
        "rollout_s": float(np.median(rollout_s)),
        "sampler_gap": told["sampler_gap_max"],
    }


def _prepared(task: dict) -> tuple:
    """The voice of a state, the jitted update, the first state, the frozen tree, the rows."""
    import jax

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.data.rollouts import bounds, rollout_batch
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.models.decoder import Decoder
    from hen_jax.objectives.policy import KlConfig, ObjectiveConfig
    from hen_jax.runs.model import open_model
    from hen_jax.runs.speech import own_speech
    from hen_jax.sampling.logits import Sampling
    from hen_jax.sampling.slots import Slots
    from hen_jax.steps.policy import first_memory, policy_says, policy_step
    from hen_jax.steps.policy_config import PolicyConfig
    from hen_jax.steps.preference import BASE
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_adapter, initial_state, to_devices

    mesh, G = make_mesh(MeshConfig()), task["replies"]
    lora, execution = LoraConfig(16, 32.0), Execution("float32", task["remat"])
    model = open_model(Path(task["model"]), mesh, lora=lora, execution=execution, dtype="float32")
    adapter = initial_adapter(
        lambda key: Decoder(key, model.config, lora, execution), model.shardings, seed=0
    )
    length = max(map(len, task["prompt_ids"]))
    sizes = bounds(length, task["new"], G, task["shared"], False)
    config = PolicyConfig(
        objective=ObjectiveConfig(aggregate="sequence"),
        kl=KlConfig(0.0, measure=False),
        truncated="keep",
    )
    says = policy_says(model.graphdef, config, sizes, 1.0, task["logit_chunk"])
    settings = OptimizerConfig(1e-5, schedule="constant", warmup=0.0)
    optimizer = make_optimizer(settings, make_schedule(settings, 1000))
    step = policy_step(says, config, sizes, optimizer, task["microbatches"])
    rows = G * len(task["prompt_ids"])
    slots = Slots(rows, length + task["new"], prefill=(length,), prefill_tokens=length, biases=0)
    speak = own_speech(model.graphdef, slots, Sampling(), (), task["new"])
    state = initial_state(adapter, optimizer, 0, mesh, lambda key: first_memory(config))
    put = to_devices(mesh)

    def lay(prompts: list, spoken: list) -> Any:
        return put(rollout_batch(_judged(prompts, spoken, G), sizes, 1, False))

    return (
        lambda state: speak(state.params, model.base),
        jax.jit(step, donate_argnums=0),
        state,
        {BASE: model.base},
        lay,
    )


def _judged(prompts: list, spoken: list, G: int) -> list:
    import numpy as np

    from hen_jax.data.rollouts import JudgedGroup, Sampled

    replies = [Sampled(one.tokens, one.tokens >= 0, one.log_probs, True) for one in spoken]
    rewards = np.asarray([reward(one.tokens) for one in spoken], np.float32)
    return [
        JudgedGroup(
            prompt,
            tuple(replies[at * G : at * G + G]),
            rewards[at * G : at * G + G],
            rewards[at * G : at * G + G, None],
            np.ones(G, bool),
        )
        for at, prompt in enumerate(prompts)
    ]


def reward(tokens: Any) -> float:
    """The share of even token ids."""
    return sum(int(token) % 2 == 0 for token in tokens) / max(len(tokens), 1)


def prompts(model: Path, count: int, length: int) -> list[list[int]]:
    """Beginnings of shipped conversations, of so many tokens each."""
    from hen_jax.data import samples
    from hen_jax.data.schemas import read_documents
    from hen_jax.text.chat import render
    from hen_jax.text.detect import open_chat_tokenizer

    tokenizer = open_chat_tokenizer(model)
    found = []
    for document in read_documents(samples.path("eea/distress.jsonl"), "steered"):
        ids = render(document.conversation, tokenizer).tokens.tolist()
        if len(ids) >= length:
            found.append(ids[:length])
        if len(found) == count:
            return found
    raise SystemExit(f"only {len(found)} shipped conversations have {length} tokens")


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--replies", type=int, default=8)
    parser.add_argument("--length", type=int, default=300)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    task = {
        "model": str(options.model),
        "prompt_ids": prompts(options.model, options.prompts, options.length),
        "replies": options.replies,
        "new": options.new,
        "repeats": options.repeats,
        "remat": "dots",
        "logit_chunk": 64,
        "microbatches": 1,
        "shared": True,
    }
    peer = "peer_trl_grpo.py:theirs"
    whole = {"accumulate": 1, "continuous": False}
    sides = {
        "ours": duel.Side("ours", task),
        "ours unshared": duel.Side("ours", task | {"shared": False}),
        "theirs": duel.Side(peer, task | whole, options.peer_python),
        "theirs continuous": duel.Side(
            peer, task | whole | {"continuous": True}, options.peer_python
        ),
        "theirs in halves": duel.Side(peer, task | whole | {"accumulate": 2}, options.peer_python),
    }
    runs = duel.meet(sides, options.rounds, may_not_fit=True)
    best = duel.fastest(runs, "theirs")
    duel.report(runs, best, options.out, show=("rollout_s", "sampler_gap"))


if __name__ == "__main__":
    duel.main(compare, ours)

"""What a batch of several experts costs, against the same batch with one adapter.

    python benchmarks/experts_cost.py --model models/smollm2-135m              # on this machine
    python benchmarks/experts_cost.py --compiled --out experts_cost_tpu.json   # by the TPU compiler

On this machine: a training step (rank 16 on all linear layers, AdamW, each expert's own update) and
decoding by the engine, with 1, 4 and 32 adapters; the rows go to the experts in turn. Seconds of a
step, and of all requests; compilation and a warm-up are left out.

Compiled: Llama 3.1 8B for `v5e:4x4`, the step of `--config=experts:llama3_8b` and a step of
decoding with as many adapters side by side; the seconds are those of the roofline (what overlaps
least: compute, memory or links). The training step has as many rows for one adapter as for many.
"""

import argparse
import functools
from pathlib import Path

import duel

RANK, ALPHA = 16, 32.0


def train(task: dict) -> dict:
    """Updates of all experts by one batch."""
    import jax
    import numpy as np

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.core.types import Batch
    from hen_jax.models.config import Execution, LoraConfig
    from hen_jax.runs.earlier import new_adapters
    from hen_jax.runs.model import open_model
    from hen_jax.steps.experts import experts_loss, experts_step
    from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
    from hen_jax.training.placement import initial_state

    mesh, count = make_mesh(MeshConfig()), task["experts"]
    named = {f"e{number}": LoraConfig(RANK, ALPHA) for number in range(count)}
    joint = LoraConfig(RANK * count, float(RANK * count))
    execution = Execution(task["precision"], "dots")
    model = open_model(Path(task["model"]), mesh, lora=joint, execution=execution, dtype="float32")
    settings = OptimizerConfig(1e-4, schedule="constant", warmup=0.0)
    optimizer = make_optimizer(settings, make_schedule(settings, 100))
    optimizers = dict.fromkeys(named, optimizer)
    made = new_adapters(model, named, execution, 0)
    state = initial_state(made.trainable, optimizers, 0, mesh)
    step = jax.jit(experts_step(experts_loss(model.graphdef, named), optimizers), donate_argnums=0)
    rows, length = task["rows"], task["length"]
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (rows, length), np.int32)
    ones = np.ones((rows, length), np.int32)
    place = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
    batch = Batch(ids, np.roll(ids, -1, 1), ones.astype(np.float32), place, ones)
    batch = batch._replace(expert=np.arange(rows, dtype=np.int32) % count)

    def update() -> None:
        nonlocal state
        state, metrics = step(state, made.frozen, batch)
        jax.block_until_ready(metrics)

    update()
    return duel.timed(update, task["repeats"]) | {"amount": rows * length}


def decode(task: dict) -> dict:
    """Greedy replies of all rows, each by its own expert."""
    import jax
    import numpy as np

    from hen_jax.io import hf
    from hen_jax.models.config import LoraConfig
    from hen_jax.models.decoder import abstract, split
    from hen_jax.runs.decoding import read_with_room
    from hen_jax.sampling.engine import Engine
    from hen_jax.sampling.logits import Sampling
    from hen_jax.sampling.requests import Request
    from hen_jax.sampling.slots import Slots
    from hen_jax.serving.experts import Experts
    from hen_jax.serving.shelf import Adapter, Shelf

    folder, count, rows = Path(task["model"]), task["experts"], task["rows"]
    config, shelf = hf.read_config(folder), Shelf(count, RANK)
    places = 16 + task["new"]
    weights = read_with_room(folder, config, places, shelf.lora)
    engine = Engine(weights, Slots(rows, places, columns=shelf.columns), key="base")
    experts, rng = Experts(shelf), np.random.default_rng(0)
    lora = LoraConfig(RANK, ALPHA)
    shapes = split(abstract(config, lora)).adapter
    for number in range(count):
        leaves = jax.tree.map(lambda s: 0.01 * rng.standard_normal(s.shape).astype("f4"), shapes)
        experts.load(engine, f"e{number}", Adapter(lora, leaves), "")
    greedy = Sampling(temperature=0.0)
    asked = [
        experts.prepared(
            Request(tuple(rng.integers(3, 1000, 8).tolist()), task["new"], sampling=greedy),
            {f"e{row % count}": 1.0},
        )
        for row in range(rows)
    ]
    engine.run(asked)
    found = duel.timed(lambda: engine.run(asked), task["repeats"])
    return found | {"amount": rows * task["new"]}


def compiled(task: dict) -> dict:
    """The least seconds of a step by the TPU compiler's program; of decoding or of training."""
    from hen_jax.planning.stage import plan_program
    from hen_jax.planning.topologies import open_topology
    from hen_jax.recipes.experts import STAGE
    from hen_jax.runs.abstract import program
    from hen_jax.runs.abstract_decoding import decoding_program
    from hen_jax.runs.settings import settings
    from hen_jax.verbs.run.launch import load_config

    count, topology = task["experts"], open_topology(task["topology"])
    config = load_config("experts:llama3_8b", [])
    config.experts = tuple({"name": f"e{n}", "sources": _any_source()} for n in range(count))
    config.data.batch_size = task["rows"] // count
    if task["what"] == "decode":
        config.mesh.fsdp, config.mesh.tensor = 2, 8
    asked = settings(STAGE.settings, config)
    make = (
        functools.partial(program, STAGE)
        if task["what"] == "train"
        else functools.partial(decoding_program, "decode", STAGE)
    )
    plan = plan_program(task["what"], make(asked, topology), topology)
    if plan.costs is None:
        raise SystemExit(f"{task} does not fit: {plan.memory.peak / 2**30:.1f} GiB")
    least = plan.costs.roofline
    return {
        "seconds": least.step,
        "serial": least.serial,
        "amount": plan.tokens,
        "peak_bytes": plan.memory.peak,
        "bound": least.bound,
        "compile_s": plan.compile_seconds,
    }


def _any_source() -> tuple[dict[str, str], ...]:
    return ({"schema": "steered", "path": "shipped:eea/distress.jsonl"},)


def compare() -> None:
    """One table for training and one for decoding."""
    options = _arguments()
    for what in options.what:
        task = {"model": str(options.model), "repeats": options.repeats, "what": what}
        task |= {"precision": options.precision, "rows": options.rows, "length": options.length}
        task |= {"new": options.new, "topology": options.topology}
        call = "compiled" if options.compiled else what
        sides = {
            f"{what}, {count} experts": duel.Side(call, task | {"experts": count})
            for count in options.experts
        }
        one = f"{what}, {options.experts[0]} experts"
        several = len(options.what) > 1
        out = options.out.with_stem(f"{options.out.stem}_{what}") if several else options.out
        show = ("serial", "compile_s") if options.compiled else ()
        duel.report(duel.meet(sides, options.rounds), one, out, show)


def _arguments() -> argparse.Namespace:
    parser = duel.arguments(__doc__)
    parser.add_argument("--model", type=Path, help="a Hugging Face model folder")
    parser.add_argument("--what", nargs="+", default=["train", "decode"])
    parser.add_argument("--experts", type=int, nargs="+", default=[1, 4, 32], help="first: one")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row that trains")
    parser.add_argument("--new", type=int, default=64, help="tokens of a reply")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compiled", action="store_true", help="for TPUs, by their compiler")
    parser.add_argument("--topology", default="v5e:4x4")
    options = parser.parse_args()
    if options.model is None and not options.compiled:
        parser.error("--model is needed, but with --compiled")
    return options


if __name__ == "__main__":
    duel.main(compare, train, decode, compiled)

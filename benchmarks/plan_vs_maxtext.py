"""Memory of a training step on a TPU slice, ours against MaxText's, by the same compiler.

    pip install 'hen_jax[plan]'  # and, in an environment of its own, maxtext
    python benchmarks/plan_vs_maxtext.py --peer-python .venv-maxtext/bin/python

Llama-3.1-8B, all parameters, 16 rows of 8,192 tokens on 16 v5p chips, fsdp over all of them;
parameters and Adam's moments in float32, products in bfloat16, fused attention, every block
rematerialised (their `remat_policy=full`, our `remat="block"`). Neither side touches a chip. The
two environments should hold the same jax and libtpu.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import duel

GIB = 2**30
CHIPS, ROW_LENGTH = 16, 8192
TOLD = ("jax", "jaxlib", "libtpu", "maxtext", "hen_jax")

THEIRS = (
    "compile_topology=v5p-32",  # named by cores, two to a chip
    "compile_topology_num_slices=1",
    "model_name=llama3.1-8b",
    "per_device_batch_size=1",
    f"max_target_length={ROW_LENGTH}",
    "attention=flash",
    "remat_policy=full",
    "enable_checkpointing=False",
    "dataset_type=synthetic",
    "hardware=tpu",
    "run_name=memory",
)

NO_TPU = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # of the host it would run on: asked for, not used
    "TPU_WORKER_HOSTNAMES": "localhost",
}

OURS = (
    "--config=configs/llama3_8b.py:full",
    "--topology=v5p:2x2x4",
    "--config.execution.remat=block",
)


def theirs(_: dict) -> dict:
    """Bytes per chip of MaxText's step, from what its `train_compile` prints."""
    package = importlib.util.find_spec("maxtext")
    if package is None or package.origin is None:
        raise SystemExit(f"{sys.executable} has no maxtext")
    config = Path(package.origin).parent / "configs" / "base.yml"
    command = [sys.executable, "-m", "maxtext.trainers.pre_train.train_compile", str(config)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, *THEIRS, f"base_output_directory={folder}"],
            env=os.environ | NO_TPU,
            capture_output=True,
            text=True,
            check=False,
        )
    printed = done.stdout + done.stderr
    found = re.search(r"CompiledMemoryStats\((.*?)\)", printed)
    if done.returncode or found is None:
        raise SystemExit(f"MaxText ended with exit code {done.returncode}:\n{printed[-2000:]}")
    sizes = {name: int(size) for name, size in re.findall(r"(\w+)_size_in_bytes=(\d+)", found[1])}
    new = sizes["output"] - sizes["alias"]
    parts = {"arguments": sizes["argument"], "temporaries": sizes["temp"]}
    return parts | {"peak": sum(parts.values()) + new, "versions": _versions()}


def ours(_: dict) -> dict:
    """Bytes per chip of our step, as `hen plan` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plan.json")
        command = [sys.executable, "-m", "hen_jax.cli", "plan", *OURS, "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (plan,) = json.loads(out.read_text(encoding="utf-8"))
    if plan["chips"] != CHIPS:
        raise SystemExit(f"{OURS[1]} has {plan['chips']} chips, not {CHIPS}")
    sizes = {name: plan["memory"][name] for name in ("arguments", "temporaries", "peak")}
    return sizes | {"versions": _versions()}


def _versions() -> dict[str, str]:
    every = {one.name: one.version for one in importlib.metadata.distributions()}
    return {name: every[name] for name in TOLD if name in every}


def compare() -> int:
    options = duel.arguments(__doc__, rounds=1, peer=".venv-maxtext").parse_args()
    sides = {"ours": duel.Side("ours", {}), "theirs": duel.Side("theirs", {}, options.peer_python)}
    runs = duel.meet(sides, 1)
    options.out.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    for name, (found,) in runs.items():
        sizes = (f"{part} {found[part] / GIB:.2f}" for part in ("peak", "arguments", "temporaries"))
        print(f"{name:<7} GiB per chip: {', '.join(sizes)} ({found['versions']})")
    ratio = runs["ours"][0]["peak"] / runs["theirs"][0]["peak"]
    print(f"ours / theirs: {ratio:.4f} (target <= 1.0)")
    return 0 if ratio <= 1 else 1


if __name__ == "__main__":
    duel.main(compare, ours, theirs)

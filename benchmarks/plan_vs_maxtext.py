"""Memory of a training step on a TPU slice, ours against MaxText's, by the same compiler.

    pip install 'hen_jax[plan]'  # and, in an environment of its own, maxtext
    python benchmarks/plan_vs_maxtext.py --peer-python .venv-maxtext/bin/python --out maxtext.json

Llama-3.1-8B, all parameters, 16 rows of 8,192 tokens on 16 v5p chips, fsdp over all of them;
parameters and Adam's moments in float32, products in bfloat16, fused attention, every block
rematerialised (their `remat_policy=full`, our `remat="block"`). Neither side touches a chip. The
two environments should hold the same jax and libtpu.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from hen_jax.core.files import write_json

GIB = 2**30
CHIPS, ROW_LENGTH = 16, 8192

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


def theirs(python: str) -> dict[str, int]:
    """Bytes per chip of MaxText's step, from what its `train_compile` prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "maxtext.trainers.pre_train.train_compile", _base_config(python)]
        done = subprocess.run(
            [*command, *THEIRS, f"base_output_directory={folder}"],
            env=os.environ | NO_TPU,
            capture_output=True,
            text=True,
            check=False,
        )
    printed = done.stdout + done.stderr
    if done.returncode or "CompiledMemoryStats(" not in printed:
        raise SystemExit(f"MaxText ended with exit code {done.returncode}:\n{printed[-2000:]}")
    found = re.search(r"CompiledMemoryStats\((.*?)\)", printed)
    assert found is not None
    sizes = {name: int(size) for name, size in re.findall(r"(\w+)_size_in_bytes=(\d+)", found[1])}
    new = sizes["output"] - sizes["alias"]
    return {
        "arguments": sizes["argument"],
        "temporaries": sizes["temp"],
        "peak": sizes["argument"] + new + sizes["temp"],
    }


def ours() -> dict[str, int]:
    """Bytes per chip of our step, as `hen plan` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plan.json")
        command = [sys.executable, "-m", "hen_jax.cli", "plan", *OURS, "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (plan,) = json.loads(out.read_text(encoding="utf-8"))
    if plan["chips"] != CHIPS:
        raise SystemExit(f"{OURS[1]} has {plan['chips']} chips, not {CHIPS}")
    return {name: plan["memory"][name] for name in ("arguments", "temporaries", "peak")}


def _base_config(python: str) -> str:
    """MaxText's own settings, beside its package."""
    find = "import maxtext, pathlib; print(pathlib.Path(maxtext.__file__).parent)"
    told = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True)
    return f"{told.stdout.splitlines()[-1]}/configs/base.yml"


def _versions(python: str) -> str:
    names = "('jax', 'jaxlib', 'libtpu', 'maxtext', 'hen_jax')"
    code = f"""
from importlib.metadata import distributions
found = {{d.name: d.version for d in distributions()}}
print(', '.join(f'{{n}} {{found[n]}}' for n in {names} if n in found))
"""
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer-python", default=".venv-maxtext/bin/python")
    parser.add_argument("--out", type=Path, default=Path("plan_vs_maxtext.json"))
    options = parser.parse_args()
    sizes = {"ours": ours(), "theirs": theirs(options.peer_python)}
    pythons = {"ours": sys.executable, "theirs": options.peer_python}
    versions = {side: _versions(python) for side, python in pythons.items()}
    ratio = sizes["ours"]["peak"] / sizes["theirs"]["peak"]
    write_json(options.out, {"bytes": sizes, "versions": versions, "ratio": ratio})
    for side, found in sizes.items():
        print(
            f"{side:<7} {found['peak'] / GIB:6.2f} GiB per chip: arguments "
            f"{found['arguments'] / GIB:.2f}, temporaries {found['temporaries'] / GIB:.2f} "
            f"({versions[side]})"
        )
    print(f"ours / theirs: {ratio:.4f} (target <= 1.0)")
    return 0 if ratio <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())

"""How fast, and in how much memory, a sharded checkpoint reaches its devices.

    python benchmarks/import_speed.py --layers 2

writes random bfloat16 shards of a Llama-3.1-8B with that many layers (2 of them: 3 GB), reads the
files as they are, imports them with `hf.read_params`, and compares. The page cache is dropped
before either; a first import, which compiles the programs that write into the leaves, is not
counted. The files are compared with their checksums meanwhile; the third line is without. What is
expected: at least half of the disk's own rate, and beyond the device arrays no more memory than the
largest tensor (`beyond`, in largest tensors).
"""

import json
import os
import tempfile
import threading
from pathlib import Path

import duel


def write_random(folder: Path, layers: int) -> int:
    """Bytes of the largest tensor."""
    import ml_dtypes
    import numpy as np

    from hen_jax.core.records import write_record
    from hen_jax.io import hf, names, shards
    from hen_jax.models.config import DecoderConfig
    from hen_jax.models.families import table

    shape = DecoderConfig(
        family="llama", vocab_size=128256, width=4096, layers=layers, heads=32, kv_heads=8,
        head_dim=128, mlp_width=14336, max_length=131072, norm_eps=1e-5, rope_theta=5e5,
        tied_head=False,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def fill(out):
        # Bits of small numbers: drawing normal ones would take longer than all the rest.
        bits = rng.integers(0x3C00, 0x3D00, out.shape, dtype=np.uint16)
        out[...] = bits.view(ml_dtypes.bfloat16)

    tensors = [
        shards.Tensor(name, names.fused_shape(fused, shape), np.dtype(ml_dtypes.bfloat16), fill)
        for fused in names.fused(shape)
        for name in names.expand(fused, fused.name, shape)
    ]
    shards.write_shards(folder, tensors, 10**9)
    (folder / "config.json").write_text(json.dumps(table.to_hf(shape)))
    write_record(folder, hf.MODEL_KIND, {})  # so that the files are compared while they are read
    return max(tensor.nbytes for tensor in tensors)


def forgotten(task: dict) -> list[Path]:
    """The weight files, none of them in the page cache."""
    files = sorted(Path(task["folder"]).glob("*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def plain(task: dict) -> dict:
    """Reading the files as they are."""
    files, buffer = forgotten(task), bytearray(2**24)

    def read() -> None:
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    return duel.timed(read) | {"amount": sum(path.stat().st_size for path in files)}


def imported(task: dict) -> dict:
    """The memory of a process's first import, and the seconds of its second."""
    import jax

    from hen_jax.core.mesh import MeshConfig, make_mesh
    from hen_jax.core.trees import flatten
    from hen_jax.io import hf
    from hen_jax.models.decoder import abstract
    from hen_jax.training.placement import parameter_shardings

    folder = Path(task["folder"])
    config = hf.read_config(folder)
    shardings = parameter_shardings(abstract(config), make_mesh(MeshConfig()))
    held = 0

    def read() -> None:
        nonlocal held
        params = jax.block_until_ready(hf.read_params(folder, config, None, shardings))
        held = sum(leaf.nbytes for leaf in flatten(params).values())

    memory = Anonymous()
    read()
    beyond = (memory.stop() - held) / task["largest"]
    files = forgotten(task)
    found = duel.timed(read)
    return found | {"amount": sum(path.stat().st_size for path in files), "beyond": beyond}


class Anonymous:
    """The most memory of its own that the process has held; pages of files do not count."""

    def __init__(self):
        self.start = self.peak = self.now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def now(self) -> int:
        """Bytes held at the moment."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("/proc/self/status has no RssAnon; this benchmark needs Linux")

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self.now())

    def stop(self) -> int:
        """Bytes held at the most since the start, beyond those held then."""
        self._done.set()
        self._thread.join()
        return self.peak - self.start


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = {"folder": folder, "largest": write_random(Path(folder), options.layers)}
        sides = {
            "plain read": duel.Side("plain", task),
            "import": duel.Side("imported", task),
            "import, HEN_VERIFY=off": duel.Side("imported", task, environ={"HEN_VERIFY": "off"}),
        }
        runs = duel.meet(sides, options.rounds)
    for run in (run for some in runs.values() for run in some):
        run["MB/s"] = duel.speeds([run])[0] / 1e6
    duel.report(runs, "plain read", options.out, show=("MB/s", "beyond"))


if __name__ == "__main__":
    duel.main(compare, plain, imported)

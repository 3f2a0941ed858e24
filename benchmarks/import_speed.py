"""How fast, and in how much memory, a sharded checkpoint reaches its devices.

    python benchmarks/import_speed.py --layers 2

writes random bfloat16 shards of a Llama-3.1-8B with that many layers (2 of them: 3 GB), reads the
files as they are, imports them with `hf.read_params`, and compares. The page cache is dropped
before either, and both are done in turn; from the second import on, the programs that write into
the leaves are compiled. The files are compared with their checksums meanwhile; `HEN_VERIFY=off`
shows what that costs. What is expected: at least half of the disk's own rate, and beyond the
device arrays no more memory than the largest tensor.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np

from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.records import write_record
from hen_jax.core.trees import flatten
from hen_jax.io import hf, names, shards
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import abstract
from hen_jax.models.families import table
from hen_jax.training.placement import parameter_shardings

MEGABYTE = 1e6


def config(layers: int) -> DecoderConfig:
    return DecoderConfig(
        family="llama",
        vocab_size=128256,
        width=4096,
        layers=layers,
        heads=32,
        kv_heads=8,
        head_dim=128,
        mlp_width=14336,
        max_length=131072,
        norm_eps=1e-5,
        rope_theta=5e5,
        tied_head=False,
    )


def write_random(folder: Path, shape: DecoderConfig) -> int:
    rng = np.random.default_rng(0)
    tensors = []
    for fused in names.fused(shape):
        size = names.fused_shape(fused, shape)
        for name in names.expand(fused, fused.name, shape):
            # Bits of small numbers: drawing normal ones would take longer than all the rest.
            def fill(out):
                bits = rng.integers(0x3C00, 0x3D00, out.shape, dtype=np.uint16)
                out[...] = bits.view(ml_dtypes.bfloat16)

            tensors.append(shards.Tensor(name, size, np.dtype(ml_dtypes.bfloat16), fill))
    shards.write_shards(folder, tensors, 10**9)
    (folder / "config.json").write_text(json.dumps(table.to_hf(shape)))
    write_record(folder, hf.MODEL_KIND, {})  # so that the files are compared while they are read
    return max(tensor.nbytes for tensor in tensors)


def forgotten(folder: Path) -> list[Path]:
    """The weight files, none of them in the page cache."""
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def plain_read(folder: Path) -> tuple[int, float]:
    files, buffer = forgotten(folder), bytearray(2**24)
    start, total = time.perf_counter(), 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                total += read
    return total, time.perf_counter() - start


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


class Import(NamedTuple):
    """One import, on the clock."""

    seconds: float
    held: int  # bytes of the device arrays
    beyond: int  # bytes of memory at the most, beyond those


def measured_import(folder: Path, shape: DecoderConfig) -> Import:
    shardings = parameter_shardings(abstract(shape), make_mesh(MeshConfig()))
    jax.block_until_ready(jax.numpy.zeros(1))
    forgotten(folder)
    memory, start = Anonymous(), time.perf_counter()
    params = hf.read_params(folder, hf.read_config(folder), None, shardings)
    jax.block_until_ready(params)
    seconds, peak = time.perf_counter() - start, memory.stop()
    held = sum(leaf.nbytes for leaf in flatten(params).values())
    return Import(seconds, held, peak - held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    shape = config(arguments.layers)
    plain, imports = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        largest = write_random(folder, shape)
        for _ in range(arguments.rounds):
            size, seconds = plain_read(folder)
            plain.append(seconds)
            imports.append(measured_import(folder, shape))
    read = statistics.median(plain)
    taken = statistics.median(one.seconds for one in imports)
    beyond = max(one.beyond for one in imports)
    print(
        f"checkpoint      {size / MEGABYTE:8,.0f} MB, largest tensor {largest / MEGABYTE:,.0f} MB"
    )
    print(f"plain read      {size / read / MEGABYTE:8,.0f} MB/s, median of {len(plain)}")
    print(f"import          {size / taken / MEGABYTE:8,.0f} MB/s, {read / taken:.2f} of it")
    print(f"device arrays   {imports[0].held / MEGABYTE:8,.0f} MB")
    print(f"beyond them     {beyond / MEGABYTE:8,.0f} MB, {beyond / largest:.2f} largest tensors")


if __name__ == "__main__":
    main()

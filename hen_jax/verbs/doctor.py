"""`hen doctor`: what this machine has, what is wrong with it, and what to do about it."""

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from hen_jax.io.packages import cache_folder
from hen_jax.runs.record import PACKAGES
from hen_jax.training.clusters import Cluster, find_cluster
from hen_jax.training.processes import join

PLUGINS = {"libtpu": "TPU", "jax-cuda12-plugin": "CUDA 12", "jax-cuda13-plugin": "CUDA 13"}
"""Distribution -> the devices that jax reaches through it."""

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

LEAST_FREE = 10
"""GB of disk below which a run is likely to end for lack of room: a model and two checkpoints."""

WIDTH = 1024
"""Of the matrices whose product is timed."""


class Finding(NamedTuple):
    """One line of the report; `remedy` says what to do when it is not well."""

    verdict: Literal["ok", "warning", "problem"]
    what: str
    remedy: str = ""


def doctor(*, dry: bool = False) -> bool:
    """Prints the report; whether there is no problem. `dry` does not connect to other processes."""
    healthy = True
    for check in (_versions, _cluster(dry), _devices, _memory, _product, _cache):
        for finding in _findings(check):
            print(f"{finding.verdict:8} {finding.what}", flush=True)
            if finding.remedy:
                print(f"{'':8} remedy: {finding.remedy}")
            healthy &= finding.verdict != "problem"
    return healthy


_Check = Callable[[], Iterator[Finding]]


def _findings(check: _Check) -> Iterator[Finding]:
    """What `check` finds; that it fails is a finding too, and the checks after it still run."""
    try:
        yield from check()
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        name = check.__name__.strip("_")
        yield Finding("problem", f"{name}: {first}", "see the message; `hen doctor` again then")


def _versions() -> Iterator[Finding]:
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    yield Finding("ok", f"Python {platform.python_version()} on {platform.platform()}; {found}")
    installed = [kind for name, kind in PLUGINS.items() if _installed(name)]
    yield Finding("ok", f"jax reaches: CPU{''.join(f', {kind}' for kind in installed)}")


def _cluster(dry: bool) -> _Check:
    def cluster() -> Iterator[Finding]:
        found = find_cluster(os.environ)
        if found is None:
            yield Finding("ok", "one process: the environment describes no cluster")
            return
        yield from describe_cluster(found, os.environ)
        if dry:
            return
        if reachable := _unreachable(found):
            yield reachable
            return
        join(found)
        yield Finding("ok", f"joined as process {jax.process_index()} of {jax.process_count()}")

    return cluster


def describe_cluster(cluster: Cluster, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What a run would join, without joining it."""
    devices = "all it sees" if cluster.devices is None else f"{cluster.devices} of those it sees"
    where = (
        "left to jax"
        if cluster.coordinator is None
        else f"process {cluster.index} of {cluster.processes}, coordinator {cluster.coordinator}"
    )
    yield Finding("ok", f"cluster: {cluster.name}; {where}; devices: {devices}")
    proxies = sorted(name for name in environ if name.lower() in ("http_proxy", "https_proxy"))
    if proxies:
        yield Finding(
            "warning",
            f"{', '.join(proxies)} set: joining the other processes may hang",
            "unset them, or add the hosts of the run to no_proxy",
        )


def _unreachable(cluster: Cluster) -> Finding | None:
    """Why process 0 cannot be reached by its name, if it cannot."""
    if cluster.coordinator is None:
        return None
    host, port = cluster.coordinator.rsplit(":", 1)
    try:
        address = socket.gethostbyname(host)
    except OSError as error:
        return Finding(
            "problem",
            f"coordinator {host} has no address ({error})",
            "HEN_COORDINATOR must name process 0 as the other hosts know it",
        )
    deadline = time.monotonic() + 60
    while cluster.index and time.monotonic() < deadline:
        try:
            socket.create_connection((address, int(port)), timeout=5).close()
            return None
        except OSError:
            time.sleep(1)  # process 0 may be a little later than this one
    if not cluster.index:
        return None
    return Finding(
        "problem",
        f"nothing answers at {host}:{port} within 60 s",
        "start `hen doctor` on all hosts at once; open that port between them",
    )


def _devices() -> Iterator[Finding]:
    local, everywhere = jax.local_devices(), jax.devices()
    yield Finding(
        "ok",
        f"devices: {len(everywhere)} x {local[0].device_kind}, {len(local)} of them here "
        f"({jax.default_backend()})",
    )
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    if Path("/dev/nvidia0").exists():
        yield Finding(
            "problem",
            "there is an NVIDIA GPU (/dev/nvidia0), but jax computes on the CPU",
            "pip install 'hen_jax[cuda13]' ('hen_jax[cuda12]' with a driver older than 580)",
        )
    if Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists():
        yield Finding(
            "problem",
            "this looks like a TPU host, but jax computes on the CPU",
            "pip install 'hen_jax[tpu]', and end other processes that hold the TPU",
        )


def _memory() -> Iterator[Finding]:
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    yield Finding("ok", f"host memory: {host:.1f} GB, {os.cpu_count()} cores")
    stats = jax.local_devices()[0].memory_stats() or {}  # a CPU has none of its own
    if "bytes_limit" in stats:
        yield Finding("ok", f"device memory: {stats['bytes_limit'] / 1e9:.1f} GB that jax may take")
    on_request = HUGE_PAGES.exists() and "[madvise]" in HUGE_PAGES.read_text(encoding="ascii")
    asked = "malloc.hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "")
    if jax.default_backend() == "cpu" and on_request and not asked:
        yield Finding(
            "ok",
            "memory in small pages; on a CPU, steps that take gigabytes may run faster with "
            "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
        )


def _product() -> Iterator[Finding]:
    """A product on every device of every process: do they compute, and does the network carry?"""
    mesh = jax.make_mesh((jax.device_count(),), ("all",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("all"))
    ones = jax.jit(lambda: jnp.ones((jax.device_count(), WIDTH, WIDTH)), out_shardings=rows)()
    product = jax.jit(lambda x: (x @ x).sum())
    total = float(product(ones))
    start = time.perf_counter()
    float(product(ones))
    seconds = time.perf_counter() - start
    expected = float(jax.device_count() * WIDTH**3)
    rate = 2 * expected / seconds / 1e9
    if abs(total / expected - 1) > 1e-3:
        yield Finding("problem", f"a product gave {total}, not {expected}", "change the device")
    else:
        yield Finding("ok", f"a product over all devices is right; {rate:,.0f} GFLOP/s")


def _cache() -> Iterator[Finding]:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding("problem", f"cache {folder}: {error.strerror}", "set HEN_CACHE to a folder")
        return
    free = shutil.disk_usage(folder).free / 1e9
    programs = sum(1 for _ in (folder / "xla").glob("*-cache"))
    what = f"cache {folder}: {free:.0f} GB free, {programs} compiled programs"
    if free < LEAST_FREE:
        yield Finding("warning", what, f"free {LEAST_FREE} GB, or set HEN_CACHE to a larger disk")
    else:
        yield Finding("ok", what)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

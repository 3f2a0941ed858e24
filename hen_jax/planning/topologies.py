"""What can be rented: chips with their data-sheet figures, and slices of them by name."""

import dataclasses
import math
import os
import re
from typing import Any, Literal

import jax
from jax.experimental import topologies

from hen_jax.core.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator as its maker describes it; nothing here was measured by us."""

    platform: Literal["tpu", "cuda"]
    flops: float  # per second, dense bfloat16
    hbm: int  # bytes
    hbm_rate: float  # bytes per second
    link_rate: float  # bytes per second sent, both ports of a torus axis together, or NVLink
    network_rate: float  # bytes per second and chip between slices or nodes
    source: str


_CLOUD = "cloud.google.com/tpu/docs/"
_SHEET = "NVIDIA data sheet, SXM, 8 GPUs to a node, 400 Gbit/s each between nodes"

CHIPS = {
    "v4": Chip("tpu", 275e12, 32 * GIB, 1200e9, 90e9, 6.25e9, _CLOUD + "v4; links: scaling book"),
    "v5e": Chip("tpu", 197e12, 16 * GIB, 819e9, 100e9, 3.125e9, _CLOUD + "v5e"),
    "v5p": Chip("tpu", 459e12, 95 * GIB, 2765e9, 200e9, 6.25e9, _CLOUD + "v5p"),
    "v6e": Chip("tpu", 918e12, 32 * GIB, 1638e9, 200e9, 12.5e9, _CLOUD + "v6e"),
    "a100": Chip("cuda", 312e12, 80 * 10**9, 2039e9, 300e9, 25e9, _SHEET),
    "h100": Chip("cuda", 989e12, 80 * 10**9, 3350e9, 450e9, 50e9, _SHEET),
    "h200": Chip("cuda", 989e12, 141 * 10**9, 4800e9, 450e9, 50e9, _SHEET),
}
"""Cloud TPU pages give the ICI of a chip over all ports and both directions: 400 GB/s over the four
ports of a v5e, so that the two ports of one axis send 100 GB/s."""

_DEVICE_KINDS = (
    (r"TPU v4", "v4"),
    (r"TPU v5 lite|TPU v5e", "v5e"),
    (r"TPU v5|TPU v5p", "v5p"),
    (r"TPU v6 lite|TPU v6e", "v6e"),
    (r"NVIDIA A100-SXM4.*", "a100"),
    (r"NVIDIA H100 80GB HBM3", "h100"),
    (r"NVIDIA H200", "h200"),
)
"""What jax calls a device -> a key of `CHIPS`. Cards for PCIe are slower, and are not there."""


def chip_of(device_kind: str) -> Chip | None:
    """The data sheet of a device by its name (`device.device_kind`); None if there is none."""
    for pattern, kind in _DEVICE_KINDS:
        if re.fullmatch(pattern, device_kind):
            return CHIPS[kind]
    return None


EXAMPLES = (
    "v4:2x2x2, v5e:4x4, v5p:2x2x4, v6e:8x8, v5p:4x4x4*2 (two slices), a100:8, h100:8, h200:16"
)

_STAND_IN = {1: "1x1x1", 2: "1x2x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"}
"""v5p slices of as many chips as there are GPUs, to estimate a GPU program's memory with."""


_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # or it asks a server that only Google's machines have, and hangs
    "TPU_WORKER_HOSTNAMES": "localhost",  # or it warns that this is no such machine
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # or two plans at once fight over a lock on chips
}
"""What libtpu must be told where there is no TPU."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips wired together: `slices` slices of `shape` each."""

    name: str
    kind: str  # a key of CHIPS
    shape: str  # such as 4x4; of GPUs, their number
    slices: int
    devices: tuple[Any, ...]  # compile-only TPU devices

    @property
    def chip(self) -> Chip:
        """The data sheet of its chips."""
        return CHIPS[self.kind]

    @property
    def linked(self) -> int:
        """How many chips reach each other over links: those of a slice, or of a node of 8 GPUs."""
        return min(8, len(self.devices)) if self.estimated else len(self.devices) // self.slices

    @property
    def estimated(self) -> bool:
        """Whether programs are compiled for TPUs that stand in for the chips named."""
        return self.chip.platform == "cuda"


def open_topology(name: str) -> Topology:
    """The slice that `name` describes, with devices to compile for and no hardware touched.

    `v5e:4x4` is 16 chips; `v5p:4x4x4*2` two slices of 64; `h100:8` eight GPUs, whose programs are
    compiled for a v5p slice of as many chips as an estimate.

    Raises:
      InputError: an unknown chip or shape, or no TPU compiler (`libtpu`) installed.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?:\*(\d+))?", name)
    if match is None or match[1] not in CHIPS:
        raise InputError(
            f"topology {name!r} is not known; there are {', '.join(CHIPS)}: {EXAMPLES}"
        )
    kind, shape, slices = match[1], match[2], int(match[3] or 1)
    if CHIPS[kind].platform == "tpu":
        return Topology(name, kind, shape, slices, _tpu_devices(f"{kind}:{shape}", slices))
    if not shape.isdigit() or int(shape) not in _STAND_IN or slices != 1:
        counts = ", ".join(map(str, _STAND_IN))
        raise InputError(f"topology {name!r}: GPUs are given by number, one of {counts}")
    return Topology(name, kind, shape, 1, _tpu_devices(f"v5p:{_STAND_IN[int(shape)]}", 1))


def _tpu_devices(name: str, slices: int) -> tuple[Any, ...]:
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    sizes = [int(size) for size in name.split(":")[1].split("x")]
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name.startswith("v4:"):  # both cores of a chip as one device, as on the machines
        options["chip_config_name"] = "megacore"
    if math.prod(sizes) < 4:  # less than a host, which libtpu must be told
        options["chips_per_host_bounds"] = [*sizes, 1, 1][:3]
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"topology {name!r}: {why}; there are such as {EXAMPLES}") from None
    return tuple(found.devices)

"""The least time a step can take on a chip: products, memory or links, whichever is slowest."""

from typing import NamedTuple

from hen_jax.planning.topologies import Topology

ASSUMPTIONS = (
    "The roofline is a lower bound on time: products run at the chip's peak bfloat16 rate; memory "
    "moves at its peak rate, each operand read once; collectives run as rings over both ports of "
    "one torus axis (of NVLink on GPUs), those between slices over the data-centre network; the "
    "at best these overlap perfectly and the slowest alone is the step time, at worst they add up. "
    "Dispatch and input are left out. MFU counts the model's own "
    "products (causal attention counted as half), not what is recomputed."
)


class Workload(NamedTuple):
    """What one chip does in one step."""

    flops: float
    hbm_bytes: float
    link_bytes: float  # sent within the slice
    network_bytes: float  # sent to other slices


class Roofline(NamedTuple):
    """Seconds that each resource is busy in one step."""

    compute: float
    memory: float
    links: float
    network: float

    @property
    def step(self) -> float:
        """Seconds per step with everything overlapped."""
        return max(self)

    @property
    def serial(self) -> float:
        """Seconds per step with nothing overlapped."""
        return sum(self)

    @property
    def bound(self) -> str:
        """The resource that decides."""
        return max(self._fields, key=lambda name: self[self._fields.index(name)])


def roofline(work: Workload, topology: Topology) -> Roofline:
    """Divides the work by the rates of the chip's data sheet."""
    chip = topology.chip
    return Roofline(
        compute=work.flops / chip.flops,
        memory=work.hbm_bytes / chip.hbm_rate,
        links=work.link_bytes / chip.link_rate,
        network=work.network_bytes / chip.network_rate,
    )


def mfu(model_flops: float, seconds: float, topology: Topology) -> float:
    """Model FLOPs utilisation (Chowdhery et al., 2022, appendix B): achieved over peak.

    `model_flops` are those of all chips in one step of `seconds`.
    """
    return utilisation(model_flops, seconds, topology.chip.flops, len(topology.devices))


def utilisation(model_flops: float, seconds: float, peak: float, chips: int) -> float:
    """`mfu` of `chips` chips that do `peak` operations per second each.

    1e15 operations in 2 s on 4 chips of 250e12: 0.5.
    """
    return model_flops / (seconds * peak * chips)

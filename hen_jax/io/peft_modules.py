"""The linear layers that PEFT adapts, by the names of its files."""

from typing import NamedTuple

from hen_jax.io import names
from hen_jax.io.peft_settings import PeftSettings
from hen_jax.models.config import DecoderConfig

PREFIX = "base_model.model."
"""What PEFT's names of tensors begin with."""

A, B = ".lora_A.weight", ".lora_B.weight"


def pair_names(name: str) -> tuple[str, str]:
    """PEFT's names of the `A` and the `B` of a Hugging Face tensor."""
    module = PREFIX + name.removesuffix(".weight")
    return module + A, module + B


class PeftModule(NamedTuple):
    """A linear layer of the Hugging Face model, and the targets whose kernels lie in it."""

    name: str  # {layer} left in
    targets: tuple[str, ...]  # those that are adapted
    spans: tuple[slice, ...]  # where each lies along the output
    shape: tuple[int, int]  # [out, in]

    @property
    def leaf_name(self) -> str:
        """The last part, by which `target_modules` and patterns name it."""
        return self.name.rpartition(".")[2]

    def names(self, config: DecoderConfig, end: str) -> list[str]:
        """The names of its `A` or `B`, one per layer."""
        return [f"{PREFIX}{self.name}{end}".format(layer=i) for i in range(config.layers)]

    def adapted(self, config: DecoderConfig, settings: PeftSettings) -> list[bool]:
        """Whether its own adapter stands in each layer."""
        every = (self.name.format(layer=i) for i in range(config.layers))
        return [settings.targets.adapts(name) for name in every]


def modules_of(config: DecoderConfig, targets: tuple[str, ...] | None = None) -> list[PeftModule]:
    """The linear layers of a block that hold any of `targets`; None is all of them."""
    modules = []
    for fused in names.fused(config):
        places = [
            (row.path.split("/")[-2], span)
            for row, span in names.layer_parts(fused, config)
            if row.stacked and row.transposed
        ]
        chosen = [(name, span) for name, span in places if targets is None or name in targets]
        if chosen:
            held, spans = zip(*chosen, strict=True)
            out, width = names.fused_shape(fused, config)
            modules.append(PeftModule(fused.rows[0].module, held, spans, (out, width)))
    return modules


def linear_rows(config: DecoderConfig) -> dict[str, names.Weight]:
    """The linear layers of a block by the name `LoraConfig.targets` gives them."""
    rows = (row for row in names.weight_table(config) if row.stacked and row.transposed)
    return {row.path.split("/")[-2]: row for row in rows}

"""`hen export --all-experts`: each expert of a run, and how vLLM, Ollama and llama.cpp take it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.folders import require_replaceable
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.io import peft
from hen_jax.models.config import LoraConfig
from hen_jax.runs.earlier import PreviousRun, previous_run
from hen_jax.runs.export.folders import export
from hen_jax.runs.export.gguf import export_gguf
from hen_jax.runs.export.trained import Exported
from hen_jax.runs.origin import origin_of

ExpertsFormat = Literal["peft", "gguf-lora"]

BASE_GGUF = "base.gguf"
"""What a Modelfile calls the base beside it."""

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be."""


class ExpertExports(NamedTuple):
    """What was written, and the lines that say how to use it."""

    exported: tuple[Exported, ...]
    lines: tuple[str, ...]


def export_experts(
    run: Path,
    out: Path,
    format_: str,
    dtype: str | None = None,
    base_model: str | None = None,
) -> ExpertExports:
    """Writes each expert into the folder `out`, under its name, compared with the run's logits.

    "peft" is a folder each, and a line for vLLM; "gguf-lora" a file each with a Modelfile beside it
    for Ollama, which takes the base from `base.gguf` there. One expert is written after another:
    where one fails, those before it stand, and the same command writes all again.

    Raises:
      InputError: a run without experts, another format, or something of somebody else in `out`.
      RuntimeError: as `export`.
    """
    earlier = previous_run(run)
    if not earlier.adapters:
        raise InputError(f"{run} trained no experts; leave --all-experts out")
    if format_ not in ("peft", "gguf-lora"):
        raise InputError(f"--all-experts goes with --format peft or gguf-lora, not with {format_}")
    require_no_link(out)
    names = tuple(earlier.adapters)
    if format_ == "peft":
        for name in names:
            require_replaceable(out / name, peft.ADAPTER_KIND)
        exported = [export(run, out / name, "peft", dtype, base_model, name) for name in names]
        return ExpertExports(tuple(exported), (vllm_line(earlier, out, base_model),))
    out.mkdir(parents=True, exist_ok=True)
    require_ours(*(out / f"{name}.{end}" for name in names for end in ("gguf", "Modelfile")))
    exported, lines = [], []
    for name in names:
        exported.append(
            export_gguf(run, out / f"{name}.gguf", "gguf-lora", dtype, base_model, name)
        )
        path = out / f"{name}.Modelfile"
        with output_files(path) as (staged,):
            staged.write_text(modelfile(name), encoding="utf-8")
        lines.append(shlex.join(["ollama", "create", name, "-f", str(path)]))
    return ExpertExports(tuple(exported), (*lines, llama_line(names, out)))


def modelfile(name: str) -> str:
    """For Ollama: the base with one expert; both stand beside the file."""
    return f"FROM ./{BASE_GGUF}\nADAPTER ./{name}.gguf\n"


def vllm_line(earlier: PreviousRun, out: Path, base_model: str | None = None) -> str:
    """The command that serves the base and all experts, each as a model of its name."""
    base = base_model or origin_of(earlier.base).base_model or str(earlier.base)
    loras = [f"{name}={out / name}" for name in earlier.adapters]
    words = ["vllm", "serve", base.partition("@")[0], "--enable-lora"]
    words += ["--max-loras", str(len(loras)), "--max-lora-rank", str(_rank(earlier.adapters))]
    return shlex.join([*words, "--lora-modules", *loras])


def llama_line(names: Sequence[str], out: Path) -> str:
    """The command for llama.cpp's server; a request says which adapters count, by their places."""
    loras = [word for name in names for word in ("--lora", str(out / f"{name}.gguf"))]
    return shlex.join(
        ["llama-server", "-m", str(out / BASE_GGUF), "--lora-init-without-apply", *loras]
    )


def _rank(adapters: Mapping[str, LoraConfig]) -> int:
    """The least that vLLM allows for the largest of them."""
    most = max(lora.rank for lora in adapters.values())
    return next((rank for rank in VLLM_RANKS if rank >= most), most)

"""What the shipped large configs need and could reach, told by the TPU compiler without a chip.

    pip install 'hen_jax[plan]'
    python benchmarks/plan_table.py --out plan_table.json --readme README.md

Every row is one `hen plan`, in a process of its own; half an hour or more in all on 2 cores.
The table between the two markers in the README is replaced. A row that misses what its config
promises is reported, and the exit code is 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

GIB = 2**30
BEGIN, END = "<!-- plan:begin -->", "<!-- plan:end -->"


class Row(NamedTuple):
    """A config on a topology, and what it must reach."""

    config: str
    topology: str
    recompute: float = 1.35  # at most
    mfu: float = 0.0  # at least, everything overlapped
    seconds: float = float("inf")  # of compiling, at most
    overrides: tuple[str, ...] = ()


ROWS = (
    Row("configs/llama3_8b.py:lora", "v5e:4x4", seconds=300),
    Row("configs/llama3_8b.py:full", "v5p:2x2x4", mfu=0.55, seconds=300),
    Row("configs/llama3_70b.py:full", "v5p:4x4x4"),
    Row("configs/llama3_70b.py:lora", "v5p:2x2x4"),
    Row("configs/qwen2_5_7b.py:lora", "v5e:4x4"),
    Row("configs/qwen2_5_7b.py:full", "v5p:2x2x4"),
    Row("configs/phi3_mini.py:lora", "v5e:4x4", recompute=1.4),
    Row("configs/phi3_mini.py:full", "v5e:4x4"),
    Row("configs/llama3_8b.py:lora", "h100:8", overrides=("--config.execution.attention=cudnn",)),
)

HEADER = (
    "| config | chips | memory per chip | recomputed | bound by | MFU, all or nothing overlapped | "
    "tokens/s per chip, at best | compiled in |\n|---|---|---|---|---|---|---|---|"
)


def planned(row: Row) -> list[dict[str, Any]]:
    """The stages of a row, as `hen plan` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plan.json")
        command = [sys.executable, "-m", "hen_jax.cli", "plan", "--config", row.config]
        command += ["--topology", row.topology, "--json", str(out), *row.overrides]
        subprocess.run(command, check=True)
        return [one | {"config": row.config} for one in json.loads(out.read_text("utf-8"))]


def cells(plan: dict[str, Any]) -> str:
    """One line of the table."""
    memory, costs = plan["memory"], plan["costs"]
    used = f"{memory['peak'] / GIB:.1f} of {memory['limit'] / GIB:.0f} GiB"
    used += " (estimate)" * plan["estimated"]
    where = f"{plan['topology']} ({plan['chips']})"
    name = f"`{Path(plan['config']).name}` {plan['stage']}"
    if costs is None:
        return (
            f"| {name} | {where} | does not fit: {used} | | | | | {plan['compile_seconds']:.0f} s |"
        )
    return (
        f"| {name} | {where} | {used} | {costs['recompute']:.2f}x | {costs['roofline']['bound']} | "
        f"{costs['mfu']:.2f}, {costs['serial_mfu']:.2f} | {costs['tokens_per_second']:,.0f} | "
        f"{plan['compile_seconds']:.0f} s |"
    )


def misses(row: Row, plan: dict[str, Any]) -> list[str]:
    """What a row promised and does not reach."""
    costs, found = plan["costs"], []
    if not plan["fits"] or costs is None:
        return ["does not fit"]
    if costs["recompute"] > row.recompute:
        found.append(f"recomputes {costs['recompute']:.3f}x, more than {row.recompute}x")
    if costs["mfu"] < row.mfu:
        found.append(f"MFU {costs['mfu']:.2f}, less than {row.mfu}")
    if plan["compile_seconds"] > row.seconds:
        found.append(f"compiled in {plan['compile_seconds']:.0f} s, more than {row.seconds:.0f}")
    return found


def write_table(readme: Path, table: str) -> None:
    """Replaces what stands between the markers."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{readme} has no {BEGIN} and {END} to write between")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main() -> int:
    from hen_jax.core.files import read_json, write_json

    parser = argparse.ArgumentParser(description="Plans of the shipped large configs.")
    parser.add_argument("--out", type=Path, default=Path("plan_table.json"))
    parser.add_argument("--readme", type=Path, help="write the table there too")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --out has")
    options = parser.parse_args()
    plans: list[dict[str, Any]] = read_json(options.out) if options.resume else []
    done = {(plan["config"], plan["topology"]) for plan in plans}
    for row in ROWS:
        if (row.config, row.topology) not in done:
            plans += planned(row)
            write_json(options.out, plans)
    table = "\n".join([HEADER, *map(cells, plans)])
    print(table)
    if options.readme is not None:
        write_table(options.readme, table)
    rows = {(row.config, row.topology): row for row in ROWS}
    wrong = [
        f"{plan['config']} on {plan['topology']}: {miss}"
        for plan in plans
        for miss in misses(rows[plan["config"], plan["topology"]], plan)
    ]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The commands of the launch recipes and the docs, as typed: parsed, run on 8 devices, planned."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import jax
import pytest
import yaml

from hen_jax import cli
from hen_jax.core.files import RECORD, read_json
from hen_jax.core.mesh import make_mesh
from hen_jax.core.rows import check_batch
from hen_jax.runs import train
from hen_jax.runs.settings import settings
from hen_jax.verbs.plan import plan
from hen_jax.verbs.run.launch import load_config, settings_of

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
COMMAND = re.compile(r"--config=\w\S*(?:[ ,]+--[\w.]+=\S+)*")
"""Words from `--config=` on, as far as flags follow."""

CHIPS = {"tpu-v5-lite-podslice": "v5e", "nvidia-h100-80gb": "h100", "H100": "h100"}
"""What recipes call chips -> what `hen plan` does."""


def commands(text: str) -> list[list[str]]:
    """The arguments of each `hen run` in a text, continued lines joined."""
    joined = re.sub(r"\\\n[# ]*", " ", text)
    return [
        [word.strip("`',].") for word in re.split(r"[ ,]+", found)]
        for found in COMMAND.findall(joined)
    ]


def skypilot(folder: Path) -> list[str]:
    """What the SkyPilot task starts, by starting it with a `hen` that tells its arguments."""
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    (folder / "hen").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (folder / "hen").chmod(0o755)
    given = {"SKYPILOT_NODE_IPS": "a", "SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0"}
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    environ = os.environ | path | task["envs"] | given
    said = subprocess.check_output(["bash", "-euc", task["run"]], env=environ, text=True)
    return said.split()[1:]


RECIPES = sorted(path for path in LAUNCH.iterdir() if path.is_file() and path.name != "README.md")


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> dict[str, list[str]]:
    """Name of a recipe -> what it gives `hen run`."""
    found = {path.name: commands(path.read_text()) for path in RECIPES}
    found["skypilot.yaml"] = [skypilot(tmp_path_factory.mktemp("sky"))]
    assert all(len(each) == 1 for each in found.values()), found
    return {name: each[0] for name, each in found.items()}


def without_workdir(words: list[str]) -> tuple[str, list[str]]:
    """The config, and its overrides."""
    config, *others = words
    return config.removeprefix("--config="), [w for w in others if w.startswith("--config.")]


TINY = (
    "--config.model.source=tiny",
    "--config.sources=({'schema': 'hed', 'path': 'shipped:hed/hed.en.jsonl'},)",
    "--config.data.row_length=256",
    "--config.epochs=0.01",
    "--config.execution.remat=none",
)
"""What makes a recipe's run small; how its rows divide over devices stays as it is."""


def read(words: list[str]):
    """The settings of a command."""
    config = load_config(*without_workdir(words))
    return settings(settings_of(config.get("recipe")), config)


def test_every_recipe_divides_its_rows_over_eight_devices(started):
    for words in started.values():
        assert any(word.startswith("--workdir=") for word in words), words
        found = read(words)
        check_batch(found.data.batch_size, found.microbatches, make_mesh(found.mesh, jax.devices()))


@pytest.mark.slow  # runs on eight devices
def test_every_recipe_of_a_cluster_runs_as_typed_on_eight_devices(started, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "make_mesh", lambda config: make_mesh(config, jax.devices()))
    # They start one command, and a run of it costs seconds. `local.sh` is started by
    # test_fault_tolerance.py.
    distinct = {tuple(words[:-1]) for name, words in started.items() if name != "local.sh"}
    assert len(distinct) == 1
    for number, words in enumerate(distinct):
        workdir = tmp_path / str(number)
        assert cli.main(["run", *words, *TINY, f"--workdir={workdir}"]) == 0
        kept = read_json(workdir / RECORD)["config"]
        assert kept["data"]["batch_size"] == read(list(words)).data.batch_size
        assert list((workdir / "checkpoints").iterdir())


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
EXAMPLES = {"mine.py", "FILE.py", "patterns.toml", "patterns/patterns.toml"}
"""What pages call a file of the reader's."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_the_docs_is_there(page):
    text = page.read_text()
    folders = "hen_jax|tests|docs|configs|benchmarks|studies|examples|launch"
    paths = set(re.findall(rf"(?<![\w/.-])(?:(?:{folders})/)[\w/.-]*[\w/]", text))
    paths |= set(re.findall(r"(?<![\w/.*-])[\w/]+\.(?:py|toml)\b", text)) - EXAMPLES
    paths |= {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    roots = (page.parent, ROOT, ROOT / "hen_jax", ROOT / "configs")
    gone = {path for path in paths if not any((root / path).exists() for root in roots)}
    assert not gone


def told(text: str) -> list[str]:
    """The `hen ...` commands of a page, without comments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", joined, flags=re.DOTALL | re.MULTILINE))
    rest = re.sub(r"^```.*?^```", "", joined, flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^(?:\$\s*)?(hen (?:[^#\n]|(?<=\S)#)+)", blocks, flags=re.MULTILINE)
    return [line.strip() for line in lines + re.findall(r"`(hen [a-z][^`]*)`", rest)]


def test_every_verb_and_make_target_in_the_docs_is_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    (ours,) = (one for one in cli._parser()._actions if one.choices)
    verbs = set(ours.choices)
    for page in PAGES:
        text = page.read_text()
        made = set(re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )?([a-z-]+)", text, flags=re.MULTILINE))
        assert made <= targets, page
        assert {line.split()[1] for line in told(text)} <= verbs, page


PLANNED = ["gke_tpu.yaml", "gke_gpu.yaml", "skypilot.yaml", "xpk.sh"]
"""Recipes that say which chips they are for."""


@pytest.mark.slow
@pytest.mark.parametrize("chips", ["v5e:4x4", "h100:16"])
def test_every_recipe_fits_its_topology(started, chips):
    distinct = {tuple(started[name][:-1]) for name in PLANNED if topology(name) == chips}
    assert distinct
    for words in distinct:
        (found,) = plan(*without_workdir(list(words)), chips)
        assert found.fits


def topology(name: str) -> str:
    """The chips that a recipe asks for, as `hen plan` names them."""
    text = (LAUNCH / name).read_text()
    if name == "xpk.sh":
        (chips,) = set(re.findall(r"v5litepod-(\d+)", text))
        return {"16": "v5e:4x4"}[chips]
    if name == "skypilot.yaml":
        task = yaml.safe_load(text)
        kind, count = task["resources"]["accelerators"].split(":")
        return f"{CHIPS[kind]}:{int(count) * task['num_nodes']}"
    (job,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    chosen, (container,) = (
        job["template"]["spec"]["nodeSelector"],
        job["template"]["spec"]["containers"],
    )
    if "cloud.google.com/gke-tpu-topology" in chosen:
        kind = CHIPS[chosen["cloud.google.com/gke-tpu-accelerator"]]
        return f"{kind}:{chosen['cloud.google.com/gke-tpu-topology']}"
    count = container["resources"]["limits"]["nvidia.com/gpu"] * job["completions"]
    return f"{CHIPS[chosen['cloud.google.com/gke-accelerator']]}:{count}"


def test_topologies_are_read_off_the_recipes():
    chips = ["v5e:4x4", "h100:16", "h100:16", "v5e:4x4"]
    assert list(map(topology, PLANNED)) == chips


@pytest.mark.parametrize("path", sorted((LAUNCH / "docker").iterdir()), ids=lambda path: path.stem)
def test_images_copy_what_there_is_and_install_what_there_is(path):
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert lines[0].startswith("FROM python:3.")
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in let_in, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        "pyproject.toml",
        "constraints.txt",
        "hen_jax",
        "configs",
        project["readme"],
        "LICENSE",
    ]
    assert set(needed) <= set(copied)
    (install,) = (line for line in lines if line.startswith("RUN pip install "))
    assert "--constraint constraints.txt" in install
    extras = re.findall(r"\[(\w+)\]", install)
    assert extras == {"cpu": [], "cuda": ["cuda13"], "tpu": ["tpu"]}[path.stem]
    assert set(extras) <= set(project["optional-dependencies"])
    assert 'ENTRYPOINT ["hen"]' in lines
    assert f"launch/docker/{path.name}" in path.read_text()


def test_the_recipes_name_images_that_can_be_built():
    for name in ("gke_tpu.yaml", "gke_gpu.yaml"):
        (file,) = re.findall(r"IMAGE # of (\S+)", (LAUNCH / name).read_text())
        assert (ROOT / file).is_file()


def test_each_python_has_one_jax():
    told = (ROOT / "README.md").read_text()
    pins = re.findall(
        r"^jax==([\d.]+) ; python_version (<|>=) '3.12'",
        (ROOT / "constraints.txt").read_text(),
        flags=re.MULTILINE,
    )
    series = {sign: ".".join(pin.split(".")[:2]) for pin, sign in pins}
    assert series.keys() == {"<", ">="}
    assert f"{series['<']} on 3.11" in told
    assert f"{series['>=']} on 3.12 and 3.13" in told.replace("\n", " ")

"""Configs as a user meets them: names, variants, every field set, bad values in one line."""

import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.fields import REQUIRED, fields_of, words
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.ranges import Count, Positive, Range, check_ranges
from hen_jax.core.rows import check_episode
from hen_jax.models.families.table import FAMILIES
from hen_jax.recipes.table import STAGES, stage_of
from hen_jax.runs import record
from hen_jax.runs.config_files import BUILT_IN, built_in, read_run_config, with_overrides
from hen_jax.runs.settings import settings
from hen_jax.verbs.run.launch import load_config, settings_of
from hen_jax.verbs.run.settings_page import page
from hen_jax.verbs.run.show_config import list_configs, show_config

ROOT = Path(__file__).parent.parent
RECORDS = sorted({stage_of(name).settings for name in STAGES}, key=lambda one: one.__name__)


def read(named: str, *overrides: str):
    config = load_config(named, overrides)
    return settings(settings_of(config.get("recipe")), config)


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_config_and_variant_is_good_and_the_one_in_the_checkout(name):
    assert (BUILT_IN / f"{name}.py").samefile(ROOT / "configs" / f"{name}.py")
    (told,) = re.findall(rf"^{name} +(\S.*)$", list_configs(), flags=re.MULTILINE)
    variants = told.split(", ")
    read(name)
    for variant in variants:
        read(f"{name}:{variant}")
        assert read_run_config(f"{name}:{variant}") == read_run_config(
            f"configs/{name}.py:{variant}"
        )
    assert read_run_config(name) == read_run_config(f"{name}:{variants[0]}")
    with pytest.raises(InputError, match=f"no variant '{variants[0]}x'; did you mean"):
        read_run_config(f"{name}:{variants[0]}x")


def test_no_config_is_built_in_that_is_not_shipped():
    assert built_in() == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            "sft:tny",
            r"sft has no variant 'tny'; did you mean 'tiny'\? there are smollm2, pod, tiny",
        ),
        ("sft:", "no variant ''"),
        ("configs/sft.py:huge", "no variant 'huge'; there are smollm2, pod, tiny"),
        ("sfd", r"no such config file; did you mean --config=sft\?"),
        ("configs/stf.py", r"did you mean --config=sft\?"),
        ("nothing/like/it", "no such config file; built in are distil, "),
    ],
)
def test_a_misspelt_name_is_never_another_run(named, message):
    with pytest.raises(InputError, match=message):
        load_config(named, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(variant: str = 'a'):\n    return ConfigDict()\n", "it names none"),
        ("def get_config():\n    return ConfigDict()\n", "no variant 'b'; it names none"),
        ("config = ConfigDict()\n", "defines no get_config"),
        ("import nothing_like_it\n", "No module named 'nothing_like_it'"),
        ("def get_config(:\n", "invalid syntax"),
    ],
)
def test_a_file_of_ones_own_is_told_what_it_lacks(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(f"from ml_collections import ConfigDict\n{text}")
    with pytest.raises(InputError, match=message):
        read_run_config(f"{file}:b")


def test_the_example_of_the_settings_page_runs_as_pasted(tmp_path):
    code = page().split("```python\n")[1].split("```")[0]
    (tmp_path / "mine.py").write_text(code)
    assert read(f"{tmp_path / 'mine.py'}:small").model.source == "tiny"
    assert read(f"{tmp_path / 'mine.py'}").model.source == "smollm2-135m"


@pytest.mark.parametrize(
    ("flag", "path", "value"),
    [
        ("loop.skip_limit=3", ("loop", "skip_limit"), 3),
        ("optimizer.weight_decay=0.1", ("optimizer", "weight_decay"), 0.1),
        ("logit_chunk=8", ("logit_chunk",), 8),
        ("guard.spike=10", ("guard", "spike"), 10.0),
        ("adapter.rank=8", ("adapter", "rank"), 8),
        ("adapter={'rank': 4, 'alpha': 8}", ("adapter", "alpha"), 8.0),
        ("model.source=123", ("model", "source"), "123"),
        ("model.dtype=None", ("model", "dtype"), None),
        ("data.cache=false", ("data", "cache"), False),
        ("optimizer.learning_rate=1e-4", ("optimizer", "learning_rate"), 1e-4),
        ("mesh.rules=(('vocab', None),)", ("mesh", "rules"), (("vocab", None),)),
    ],
)
def test_any_field_can_be_set_whether_the_file_spells_it_out_or_not(flag, path, value):
    found = read("sft:tiny", f"--config.{flag}")
    for name in path:
        found = vars(found)[name]
    assert found == value
    assert type(found) is type(value)


def test_one_item_of_a_list_can_be_set():
    before = read("sft").sources
    after = read("sft", "--config.sources[1].path=mine.jsonl").sources
    assert after[1] == dataclasses.replace(before[1], path="mine.jsonl")
    assert after[:1] + after[2:] == before[:1] + before[2:]
    with pytest.raises(InputError, match=r"config\.sources\[9\]: the list has 5 items"):
        read("sft", "--config.sources[9].path=mine.jsonl")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_every_recipe_can_be_set_to_what_it_is(record):
    """For each field: a flag with its own value changes nothing."""
    name = record.__name__.removesuffix("Settings").lower()
    name = {"expertspreference": "experts:preference"}.get(name, name)
    whole = read(name)
    for field in fields_of([record]):
        value = whole
        *groups, last = field.path.split(".")
        for key in groups:
            value = None if value is None else vars(value)[key]
        if value is None:
            continue  # a group that this recipe's config leaves out
        value = vars(value)[last]
        groups = isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value))
        if field.group is None and not groups:
            assert read(name, f"--config.{field.path}={value!r}") == whole, field.path


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("learning_rate=1", r"did you mean config\.optimizer\.learning_rate\?"),
        ("optimizer.weigth_decay=1", r"did you mean config\.optimizer\.weight_decay\?"),
        ("optimiser.clip_norm=1", r"did you mean config\.optimizer\.clip_norm\?"),
        ("optimizer.lr=1", r"did you mean config\.optimizer\.learning_rate\? `hen"),
        ("data.batchsize=1", r"did you mean config\.data\.batch_size"),
        ("epochs.more=1", r"config\.epochs\.more: no such field"),
        ("epochs[0]=1", r"config\.epochs is no list; it is a number"),
        ("zzz=1", "no such field; `hen config FILE` lists all of them"),
        ("epochs", r"give a value, as in --config\.epochs=VALUE"),
        ("recipe=sfd", r"config\.recipe is 'sfd'; allowed: 'sft'"),
    ],
)
def test_a_field_that_does_not_exist_is_told_with_the_one_that_was_meant(flag, message):
    with pytest.raises(InputError, match=message):
        read("sft:tiny", f"--config.{flag}")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("epochs=two", "config.epochs is 'two'; it must be a number, more than 0"),
        ("epochs=0", "config.epochs is 0.0; allowed: more than 0"),
        ("epochs=-1", "config.epochs is -1.0; allowed: more than 0"),
        ("epochs=nan", "config.epochs is 'nan'; it must be a number, more than 0"),
        ("epochs=1e309", "config.epochs is inf; it must be a number, 3.4e+38 at most"),
        ("guard.spike=1e39", "config.guard.spike is 1e+39; it must be a number, 3.4e+38 at most"),
        (
            "guard.spike=1e-39",
            "config.guard.spike is 1e-39; float32 holds 0, or 1.17549e-38 and more",
        ),
        ("data.batch_size=0", "config.data.batch_size is 0; allowed: 1 or more"),
        (
            "data.batch_size=2.5",
            "config.data.batch_size is 2.5; it must be a whole number, 1 or more",
        ),
        ("data.row_length=9999999999", "config.data.row_length is 9999999999; whole numbers go up"),
        ("microbatches=0", "config.microbatches is 0; allowed: 1 or more"),
        ("microbatches=True", "config.microbatches is True; it must be a whole number, 1 or more"),
        ("logit_chunk=0", "config.logit_chunk is 0; allowed: 1 or more"),
        ("loop.checkpoint_every=0", "config.loop.checkpoint_every is 0; allowed: 1 or more"),
        ("loop.eval_every=-1", "config.loop.eval_every is -1; allowed: 0 or more"),
        ("loop.stall_seconds=-1", "config.loop.stall_seconds is -1.0; allowed: 0 or more"),
        ("guard.memory=1", "config.guard.memory is 1.0; allowed: 0 or more, less than 1"),
        ("seed=-1", "config.seed is -1; allowed: 0 or more"),
        ("data.seed=-1", "config.data.seed is -1; allowed: 0 or more"),
        ("adapter.rank=0", "config.adapter.rank is 0; allowed: 1 or more"),
        ("mesh.fsdp=0", "config.mesh.fsdp is 0; allowed: -1, or 1 or more"),
        ("mesh.fsdp=-1", "config.mesh.data and fsdp are -1; only one axis can take what is left"),
        ("sources[0].weight=0", "config.sources[0].weight is 0.0; allowed: more than 0"),
        ("data.cache=maybe", "config.data.cache is 'maybe'; it must be True or False"),
        ("sources=mine.jsonl", "config.sources is 'mine.jsonl'; it must be a list"),
        ("adapter=8", "config.adapter is 8; it must be a group of fields"),
        ("mesh.rules=((1, 2),)", "config.mesh.rules[0][0] is 1; it must be text"),
    ],
)
def test_a_value_out_of_place_is_one_line_in_words(flag, message):
    with pytest.raises(InputError) as caught:
        read("sft:tiny", f"--config.{flag}")
    assert str(caught.value).startswith(message)
    assert "<class" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("steps=0", "config.steps is 0; allowed: 1 or more"),
        ("tasks=()", "config.tasks is empty; name at least one label"),
        ("emcl.inner_steps=0", "config.emcl.inner_steps is 0; allowed: 1 or more"),
        ("emcl.temperature=0", "config.emcl.temperature is 0.0; allowed: more than 0"),
        ("emcl.smoothing=1", "config.emcl.smoothing is 1.0; allowed: 0 or more, less than 1"),
        ("episode.query_rows=0", "config.episode.query_rows is 0; allowed: 1 or more"),
    ],
)
def test_so_are_those_of_a_curriculum(flag, message):
    with pytest.raises(InputError) as caught:
        read("emcl:tiny", f"--config.{flag}")
    assert str(caught.value).startswith(message)


@given_settings(max_examples=40, deadline=None)
@given(st.integers() | st.floats() | st.text(max_size=4) | st.none() | st.booleans())
def test_no_value_of_a_number_is_a_traceback(value):
    for name in ("epochs", "microbatches", "loop.stall_seconds", "data.row_length", "seed"):
        try:
            read("sft:tiny", f"--config.{name}={value!r}")
        except InputError as error:
            assert str(error).startswith(f"config.{name} is ")  # noqa: PT017
        else:
            assert not isinstance(value, str | bool)
            assert math.isfinite(value)


def test_a_default_config_refuses_a_mesh_of_eight_before_anything_is_read(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "cache"))
    told = {
        "sft": "config.data.batch_size is 2; it must be a multiple of 8 (data=8 x fsdp=1 x "
        "microbatches=1); give --config.data.batch_size=8, or at most 2 devices along "
        "config.mesh.data x config.mesh.fsdp",
        "emcl": "config.episode.support_rows is 1; it must be a multiple of 8 (data=8 x fsdp=1); "
        "give --config.episode.support_rows=8, or fewer devices along",
    }
    for name, message in told.items():
        command = ["run", f"--config={name}", f"--workdir={tmp_path / 'run'}"]
        assert cli.main([*command, "--config.mesh.data=8"]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"hen: {message}")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache" / "models").exists()


@pytest.mark.parametrize(
    ("batch", "microbatches", "remedy"),
    [
        (
            12,
            3,
            "multiple of 24 (data=8 x fsdp=1 x microbatches=3); give --config.data.batch_size=24",
        ),
        (16, 3, "give --config.data.batch_size=24, or --config.microbatches=2"),
        (8, 2, "give --config.data.batch_size=16, or --config.microbatches=1"),
    ],
)
def test_microbatches_that_do_not_divide_are_told_with_those_that_do(
    tmp_path, capsys, batch, microbatches, remedy
):
    numbers = [f"--config.data.batch_size={batch}", f"--config.microbatches={microbatches}"]
    numbers.append("--config.mesh.data=8")
    assert cli.main(["run", "--config=sft:tiny", f"--workdir={tmp_path / 'run'}", *numbers]) == 2
    assert remedy in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mesh", "episode", "message"),
    [
        (MeshConfig(8), (4, 8, 4, None), "query_rows is 4; it must be a multiple of 8 (data=8 x"),
        (
            MeshConfig(2, 4),
            (4, 6, 4, "data"),
            "support_rows is 6; it must be a multiple of 4 (fsdp",
        ),
        (
            MeshConfig(4, 2),
            (6, 2, 2, "data"),
            "6 tasks, which config.episode.task_axis='data' cannot",
        ),
        (MeshConfig(4, 2), (8, 2, 2, "data"), None),
        (MeshConfig(1, 1, 8), (3, 1, 1, None), None),
    ],
)
def test_episodes_divide_over_the_axes_that_hold_them(mesh, episode, message):
    if message is None:
        check_episode(*episode, make_mesh(mesh))
        return
    with pytest.raises(InputError, match=re.escape(message)):
        check_episode(*episode, make_mesh(mesh))


def test_print_config_tells_every_field_and_runs_nothing(tmp_path, capsys):
    flags = ["--config.loop.skip_limit=3", "--config.adapter.rank=8"]
    assert cli.main(["run", "--config=sft:tiny", "--print-config", *flags]) == 0
    said = capsys.readouterr().out
    assert said == show_config("sft:tiny", flags) + "\n"
    for field in fields_of([stage_of("sft").settings]):
        assert field.path in said
    assert "loop.skip_limit = 3 " in said
    assert "adapter.rank = 8 " in said
    assert cli.main(["config", "sft:tiny"]) == 0
    assert "adapter = None " in capsys.readouterr().out
    assert cli.main(["run", "--config=sft:tiny"]) == 2
    assert "--workdir=DIR is missing" in capsys.readouterr().err


def test_a_flag_without_equals_is_told_how_it_is_written(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--config=sft:tiny", "--workdir=x", "--config.epochs", "0.4"])
    assert "give its value with '=': --config.epochs=0.4" in capsys.readouterr().err


def test_types_are_told_in_words():
    assert words(Count | None) == "a whole number, 1 or more; or None"
    assert words(Annotated[float, Range(0, 1, below=True)]) == "a number, 0 or more, less than 1"
    assert words(Literal["a", "b"]) == "one of 'a', 'b'"
    assert words(tuple[str, ...]) == "a list, each item text"
    assert words(MeshConfig).startswith("a group of fields (data, fsdp, tensor")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Two fields with ranges."""

    rows: Count = 1  # how many
    rate: Positive | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoreNumbers(Numbers):
    """One field more."""

    name: str  # what it is called


def test_fields_that_are_extended_keep_their_meaning():
    found = {field.path: field for field in fields_of([MoreNumbers])}
    assert found["rows"].meaning == "how many"
    assert found["name"].meaning == "what it is called"
    assert found["name"].default is REQUIRED


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_ranges_refuse_nan_and_infinity_too(value):
    check_ranges(Numbers())
    check_ranges(Numbers(3, 0.5))
    for bad in (Numbers(rows=value), Numbers(rate=value)):
        with pytest.raises(InputError, match="allowed: "):
            check_ranges(bad)


def test_the_settings_page_is_the_code():
    assert (ROOT / "docs" / "settings.md").read_text() == page(), "run `make docs`"
    for settings_record in RECORDS:
        for field in fields_of([settings_record]):
            assert field.meaning, (
                f"{settings_record.__name__}: say beside {field.path} what it means"
            )
            assert field.default is not REQUIRED or f"| `{field.path}` |" in page()


def test_the_models_page_names_the_families():
    told = (ROOT / "docs" / "models.md").read_text()
    assert [name for name in FAMILIES if f"`{name}`" not in told] == []


def test_overrides_leave_the_config_alone():
    config = read_run_config("sft:tiny")
    before = config.to_json()
    with_overrides(config, [stage_of("sft").settings], ["--config.data.batch_size=3"])
    assert config.to_json() == before


def test_the_version_is_told_and_an_old_python_is_told_in_one_line(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hen_jax ")
    old = (
        "import sys; sys.version_info, sys.version = (3, 10, 13), '3.10.13 (main)'; import hen_jax"
    )
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, cwd=ROOT)
    expected = "ImportError: hen_jax needs Python 3.11 or newer; this is 3.10.13"
    assert done.stderr.splitlines()[-1] == expected


def test_a_run_tells_its_commit_only_where_git_and_a_checkout_are(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "site" / "hen_jax" / "recipes" / "r.py"))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # somebody's project
    assert record.commit() is None
    monkeypatch.undo()
    here = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert record.commit() == here
    monkeypatch.setenv("PATH", str(tmp_path))  # as in a slim image
    assert record.commit() is None

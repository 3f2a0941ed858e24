"""No verb that writes destroys anything of a user: every verb against every kind of thing there."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.core.records import read_record, write_record
from hen_jax.io import hf
from hen_jax.runs.export.folders import export
from hen_jax.runs.import_model import import_model
from hen_jax.runs.model import ModelSettings, ensure_model
from hen_jax.runs.record import claim
from hen_jax.verbs.data import sense7 as data_sense7
from hen_jax.verbs.data import stats as data_stats
from hen_jax.verbs.data.checking import scrub, validate
from hen_jax.verbs.plan import plan

REPLY = {"role": "assistant", "content": "Oh."}
LINES = [
    {"id": name, "messages": [{"role": "user", "content": said}, REPLY]}
    for name, said in (("a", "It rains."), ("b", "Mail me: x@example.org."), ("c", "I lost."))
]
SENSE7 = Path(__file__).parents[1] / "hen_jax/data/samples/sense7/sense7.xlsx"
NAMES = (
    "good.jsonl",
    "quarantine.jsonl",
    "stats.json",
    "lengths.png",
    "sense7.json",
    "config.json",
)


@pytest.fixture
def home(tmp_path, tiny_base, tiny_finished, monkeypatch):
    """Where a user's things lie: a model, a run on it and a data file."""
    folder = tmp_path / "home"
    shutil.copytree(tiny_base, folder / "model")
    shutil.copytree(tiny_finished, folder / "run")
    record = read_record(folder / "run") or {}
    record["base"]["folder"] = str(folder / "model")
    write_record(folder / "run", record.pop("kind"), record, files=False)
    write_lines(folder / "mine.jsonl", LINES)
    few = functools.partial(data_sense7.describe, draws=10)
    monkeypatch.setattr(data_sense7, "describe", few)
    monkeypatch.setattr(data_stats, "draw_lengths", lambda *args: args[-1].write_bytes(b"png"))
    monkeypatch.setattr(data_sense7, "_draw_levels", lambda *args: args[-1].write_bytes(b"png"))
    return folder


def write_lines(path: Path, rows: list[dict]):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


BASE = {"folder": "model", "weights_sha256": "a", "tokenizer_sha256": "b", "model": {}}

VERBS: dict[str, Callable[[Path, Path], object]] = {
    "import": lambda home, out: import_model(str(home / "model"), out),
    "export_hf": lambda home, out: export(home / "run", out, "hf"),
    "export_peft": lambda home, out: export(home / "run", out, "peft"),
    "run": lambda home, out: claim(out, {"config": {}, "base": BASE}),
    "validate": lambda home, out: validate(home / "mine.jsonl", "messages", out),
    "stats": lambda home, out: data_stats.stats(home / "mine.jsonl", "messages", out),
    "sense7": lambda home, out: data_sense7.analyse(SENSE7, out),
    "scrub": lambda home, out: scrub(home / "mine.jsonl", out),
    "plan": lambda home, out: plan("no_such_config.py", [], "v5e:2x2", out=out),
}
REPLACING = ("import", "export_hf", "export_peft", "run")
INTO = ("validate", "stats", "sense7")


def notes(home: Path) -> Path:
    (home / "notes").mkdir()
    for name in ("notes.txt", *NAMES):
        (home / "notes" / name).write_text("mine")
    return home / "notes"


def model_with_note(home: Path) -> Path:
    shutil.copytree(home / "model", home / "other")
    (home / "other" / "note.txt").write_text("mine")
    return home / "other"


def edited_model(home: Path) -> Path:
    shutil.copytree(home / "model", home / "other")
    with (home / "other" / "README.md").open("a") as card:
        card.write("What I found out in a year.")
    return home / "other"


def other_run(home: Path) -> Path:
    shutil.copytree(home / "run", home / "run2")
    return home / "run2"


def link(home: Path) -> Path:
    shutil.copytree(home / "model", home / "other")
    (home / "link").symlink_to(home / "other")
    return home / "link"


def dangling(home: Path) -> Path:
    (home / "link").symlink_to(home / "nowhere")
    return home / "link"


def plain_file(home: Path) -> Path:
    (home / "file").write_text("mine")
    return home / "file"


def read_only(home: Path) -> Path:
    folder = notes(home)
    folder.chmod(0o555)
    return folder


def record(text: str) -> Callable[[Path], Path]:
    def make(home: Path) -> Path:
        folder = notes(home)
        (folder / "hen_jax.json").write_text(text)
        return folder

    return make


def other_kind(home: Path) -> Path:
    folder = notes(home)
    write_record(folder, "examples", {})
    return folder


def in_checkpoints(home: Path) -> Path:
    return home / "run" / "checkpoints" / "99"


THINGS: dict[str, Callable[[Path], Path]] = {
    "notes": notes,
    "model_with_note": model_with_note,
    "edited_model": edited_model,
    "other_run": other_run,
    "this_run": lambda home: home / "run",
    "source": lambda home: home / "model",
    "ancestor": lambda home: home,
    "link": link,
    "dangling": dangling,
    "file": plain_file,
    "read_only": read_only,
    "empty_record": record("{}"),
    "damaged_record": record('{"kind": "hf_mo'),
    "list_record": record("[]"),
    "other_kind": other_kind,
}


def snapshot(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): path.readlink()
        if path.is_symlink()
        else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_of_a_user_is_lost(home, verb, thing):
    target = THINGS[thing](home)
    before = snapshot(home)
    taken = thing in ("notes", "read_only", "empty_record", "damaged_record", "list_record")
    refused = taken or thing in ("link", "dangling", "file", "other_kind")
    if verb in INTO and not refused:  # a folder may hold other things beside the report
        VERBS[verb](home, target)
    else:
        with pytest.raises(InputError) as caught:
            VERBS[verb](home, target)
        assert "\n" not in str(caught.value)
        assert snapshot(home) == before
    after = snapshot(home)
    assert before == {name: after[name] for name in before}


@pytest.mark.parametrize("verb", ["import", "run", *INTO, "scrub"])
def test_an_empty_folder_or_a_free_name_is_taken(home, verb):
    (home / "empty").mkdir()
    VERBS[verb](home, home / "empty" / "free" if verb == "scrub" else home / "empty")
    assert any((home / "empty").iterdir())


@pytest.mark.parametrize("verb", ["import", "run", *INTO, "scrub"])
def test_the_same_command_may_write_its_own_output_again(home, verb):
    out = home / "out"
    VERBS[verb](home, out)
    write_lines(home / "mine.jsonl", [*LINES, LINES[0] | {"id": "d"}])
    VERBS[verb](home, out)
    if verb in ("validate", "scrub"):
        written = out if verb == "scrub" else out / "good.jsonl"
        assert len(written.read_text().splitlines()) == 4
        with written.open("a") as file:
            file.write("my own line\n")
        before = snapshot(home)
        with pytest.raises(InputError, match="is not what hen_jax wrote there"):
            VERBS[verb](home, out)
        assert snapshot(home) == before


def test_a_model_is_no_place_for_an_adapter_and_a_run_none_for_either(home):
    for form, kind in (("hf", "hf_model"), ("peft", "peft_adapter")):
        with pytest.raises(InputError, match=rf"its hen_jax\.json says 'run', not '{kind}'"):
            export(home / "run", home / "run", form)
    shutil.copytree(home / "model", home / "other")
    with pytest.raises(InputError, match="says 'hf_model', not 'peft_adapter'"):
        export(home / "run", home / "other", "peft")


@pytest.mark.parametrize("out", ["run/checkpoints/99", "run/checkpoints", "run/new", "."])
def test_an_export_stays_out_of_the_run_but_for_its_own_folder(home, out):
    before = snapshot(home)
    with pytest.raises(InputError, match=r"source|not written"):
        export(home / "run", home / out, "peft")
    assert snapshot(home) == before


@pytest.mark.parametrize("out", ["model", "model/inside", "."])
def test_an_import_stays_apart_from_its_source(home, out):
    before = snapshot(home)
    with pytest.raises(InputError, match=r"the source|not written"):
        import_model(str(home / "model"), home / out)
    assert snapshot(home) == before


def test_a_foreign_folder_in_the_cache_is_not_replaced(home, monkeypatch):
    monkeypatch.setenv("HEN_CACHE", str(home / "cache"))
    folder = home / "cache" / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    before = snapshot(home)
    with pytest.raises(InputError, match="not written by hen_jax"):
        ensure_model(ModelSettings("tiny"))
    assert snapshot(home) == before


def test_an_earlier_model_goes_only_if_every_file_is_in_its_record(home):
    import_model(str(home / "model"), home / "out", "float16")
    import_model(str(home / "model"), home / "out", "float32")
    assert read_json(home / "out" / "config.json")["dtype"] == "float32"
    record = read_record(home / "out")
    assert record is not None
    assert record["kind"] == hf.MODEL_KIND
    (home / "out" / "sub").mkdir()
    with pytest.raises(InputError, match="sub in it was not written"):
        import_model(str(home / "model"), home / "out")

"""What an export tells the public: names and figures, never a path of this machine."""

import json

import pytest
from gguf import GGMLQuantizationType as Kind
from tiny_families import random_leaves
from tiny_folder import write_tiny_folder
from tiny_gguf import write_gguf

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.io import packages
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.runs import import_model as importing
from hen_jax.runs.card import HeldOut, export_card, held_out_loss
from hen_jax.runs.export.folders import export_trained
from hen_jax.runs.export.trained import TrainedModel
from hen_jax.runs.import_model import import_model
from hen_jax.runs.model import BaseModel, ModelSettings, ensure_model
from hen_jax.runs.origin import Origin, card_license, origin_of, public_id, without_paths
from hen_jax.runs.tiny_model import CONFIG

LORA = LoraConfig(rank=2, alpha=4.0, targets=("q", "down"))
QUESTION = "--base-model OWNER/NAME"


def files(folder):
    """What the text files of an export say."""
    names = [path for path in folder.rglob("*") if path.suffix in (".json", ".md", ".jinja")]
    return {path.name: path.read_text(encoding="utf-8") for path in names}


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An adapter on the random model, as `open_trained` gives it."""
    folder = tmp_path_factory.mktemp("secret-place")
    base, adapter = random_leaves(CONFIG, LORA)
    graphdef = split(abstract(CONFIG, LORA)).graphdef
    model = BaseModel(write_tiny_folder(folder / "tiny"), CONFIG, graphdef, base, {})
    config = {
        "recipe": "sft",
        "epochs": 2.0,
        "model": {"source": str(folder / "tiny"), "dtype": None},
        "sources": [
            {"schema": "hed", "path": str(folder / "talks.jsonl")},
            {"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},
        ],
        "optimizer": {"learning_rate": 1e-3},
    }
    record = {"config": config, "base": {"folder": str(folder / "tiny")}}
    return TrainedModel(record, model, LORA, adapter, HeldOut(3.0, 2.5))


def exported(trained, tmp_path, monkeypatch, base_model):
    """Both exports; that they are read back and compared is for other tests."""
    monkeypatch.setattr("hen_jax.runs.export.folders.checked", lambda *_: None)
    monkeypatch.setattr("hen_jax.runs.export.folders.probe_logits", lambda *_: None)
    for form in ("hf", "peft"):
        export_trained(trained, tmp_path / "secret-out" / form, form, base_model=base_model)
    return tmp_path / "secret-out"


def test_an_export_names_the_public_base_and_no_path(trained, tmp_path, monkeypatch, capsys):
    exports = exported(trained, tmp_path, monkeypatch, "org/base")
    for form in ("hf", "peft"):
        said = files(exports / form)
        for name, text in said.items():
            assert str(tmp_path.parent) not in text, name
            assert "secret" not in text, name
        card = said["README.md"]
        assert 'base_model: "org/base"' in card
        assert "Held-out loss" in card
        assert "3.0000 nats per assistant token before training, 2.5000 after" in card
        assert "`talks.jsonl`, `shipped:hed/hed.en.jsonl`" in card
        assert (exports / form / "chat_template.jinja").exists()
        assert (exports / form / "tokenizer.json").exists()
    assert read(exports / "peft", "adapter_config.json")["base_model_name_or_path"] == "org/base"
    assert 'from_pretrained("org/base")' in files(exports / "peft")["README.md"]
    assert QUESTION not in capsys.readouterr().out


def test_a_base_without_a_public_name_is_asked_for(trained, tmp_path, monkeypatch, capsys):
    exports = exported(trained, tmp_path, monkeypatch, None)
    said = capsys.readouterr().out
    assert said.count(QUESTION) == 2
    assert read(exports / "peft", "adapter_config.json")["base_model_name_or_path"] is None
    for form in ("hf", "peft"):
        assert "base_model:" not in files(exports / form)["README.md"]
    # A model that was trained has no public name of its base's.
    assert origin_of(exports / "hf") == Origin()


@pytest.mark.parametrize("name", ["base", "/models/base", "org/base/more", "here/model", "."])
def test_a_path_is_no_public_name(tmp_path, monkeypatch, name):
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="OWNER/NAME, not a path"):
        public_id(name)


def test_hen_export_refuses_a_path_before_it_reads_anything(tmp_path, capsys):
    arguments = ["export", "--run", str(tmp_path), "--format", "hf", "--out", str(tmp_path / "o")]
    assert cli.main([*arguments, "--base-model", "/models/base"]) == 2
    assert "not a path" in capsys.readouterr().err


def test_a_gguf_file_says_what_it_was(tmp_path):
    def change(writer):
        writer.add_license("apache-2.0")
        writer.add_string("general.repo_url", "https://huggingface.co/org/speaker")

    secret = tmp_path / "secret"
    secret.mkdir()
    write_gguf(secret / "m.gguf", Kind.Q4_1, change=change)
    import_model(str(secret / "m.gguf"), tmp_path / "out")
    expected = Origin("org/speaker", None, "Q4_1", "apache-2.0")
    assert origin_of(tmp_path / "out") == expected
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Q4_1 GGUF file" in card
    assert 'license: "apache-2.0"' in card
    import_model(str(tmp_path / "out"), tmp_path / "again")  # a folder passes its origin on
    assert origin_of(tmp_path / "again") == expected
    for folder in ("out", "again"):
        assert all("secret" not in text for text in files(tmp_path / folder).values())


def test_the_packaged_model_has_its_makers_name():
    assert packages.SMOLLM2_135M.origin == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_the_card_says_of_what_the_base_was_read():
    config = {
        "recipe": "emcl",
        "steps": 7,
        "emcl": {"curriculum": "learnt"},
        "sources": [{"path": "a/b.jsonl"}],
        "optimizer": {"learning_rate": 0.1},
    }
    origin = Origin("o/b", "main", "Q4_1", "mit")
    card = export_card("x", config, "7 steps of it", LORA, origin, None, "adapter")
    assert card.front == {"license": "mit", "base_model": "o/b", "base_model_relation": "adapter"}
    for part in ("`o/b` at revision `main`", "Q4_1 GGUF", "licence, mit", "`b.jsonl`", "7 steps"):
        assert part in card.summary
    assert "Held-out" not in card.summary


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: apache-2.0\n---\n# X", "apache-2.0"),
        ('---\ntags: [a]\nlicense: "mit"\n---\n', "mit"),
        ("# X\nlicense: mit\n", None),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
    ],
)
def test_the_licence_of_a_card(tmp_path, text, found):
    (tmp_path / "README.md").write_text(text)
    assert card_license(tmp_path) == found


def test_a_record_keeps_names_and_loses_places():
    record = {"a": ["/home/me/x.jsonl", "shipped:y", {"b": "~/m", "c": 3, "d": "org/name"}]}
    assert without_paths(record) == {
        "a": ["x.jsonl", "shipped:y", {"b": "m", "c": 3, "d": "org/name"}]
    }


def test_the_held_out_loss_is_the_runs_first_and_last(tmp_path, capsys):
    assert held_out_loss(tmp_path, 1) is None
    assert "metrics.jsonl holds no evaluation of updates 0 and 1" in capsys.readouterr().out
    lines = [{"kind": "eval", "step": 0, "loss": 3.0}, {"kind": "train", "step": 1, "loss": 9.0}]
    lines.append({"kind": "eval", "step": 1, "loss": 2.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert held_out_loss(tmp_path, 1) == (3.0, 2.0)
    assert held_out_loss(tmp_path, 2) is None  # it went on, and was stopped before it measured


def test_the_models_cache_tells_files_of_one_name_apart(tmp_path, monkeypatch):
    """An import is costly, so it is replaced: what is tested is whose result is used."""
    made = []

    def imported(source, out, dtype=None):
        made.append(source)
        return write(source, out, dtype)

    write = importing.write_import
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hen_jax.runs.model.write_import", imported)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        write_gguf(tmp_path / folder / "m.gguf")
    monkeypatch.chdir(tmp_path / "one")
    first = ensure_model(ModelSettings("m.gguf"))
    assert ensure_model(ModelSettings("m.gguf")) == first
    monkeypatch.chdir(tmp_path / "two")
    second = ensure_model(ModelSettings("m.gguf"))
    assert first != second
    assert made == ["m.gguf", "m.gguf"]
    (second / "tokenizer.json").write_text("{}")
    assert ensure_model(ModelSettings("m.gguf")) == second
    assert len(made) == 3
    assert len((second / "tokenizer.json").read_text()) > 2
    (second / RECORD).write_text("{")
    ensure_model(ModelSettings("m.gguf"))
    assert len(made) == 4

"""Files of other tools and records without a seal, each with an odd value: one line, code 2."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_folder import write_tiny_folder

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.io.peft_settings import read_settings
from hen_jax.methods.identifier_training import load_identifier
from hen_jax.recipes.table import stage_of
from hen_jax.runs.config_files import read_run_config
from hen_jax.runs.routing import read_router
from hen_jax.verbs.pipeline.pipeline import read_steps


def one_line(capsys, *words: object) -> str:
    """What `hen` says where it ends with code 2."""
    assert cli.main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("hen: ")
    assert len(line) < 500
    return line


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("odd") / "model")


TOKEN = {"id": 1, "content": "x", "special": True}
TOKENIZER = [
    *(None, "x", 0.5, [], {"model": []}, {"model": {"vocab": 3}}, {"added_tokens": {}}),
    *({"added_tokens": [{}]}, {"added_tokens": [TOKEN | {"id": "x"}]}, {"padding": 1}),
    *({"added_tokens": [TOKEN | {"id": None}]}, {"model": {"vocab": {"a": "b"}}}),
]
ODD = [("tokenizer.json", value) for value in TOKENIZER]
ODD += [
    (name, value)
    for name in ("tokenizer_config.json", "special_tokens_map.json")
    for value in ([], -1, float("nan"))
]
ODD += [("config.json", {"model_type": {}}), ("config.json", {"model_type": "x" * 5000})]


@pytest.mark.parametrize(("name", "value"), ODD, ids=lambda value: str(value)[:40])
def test_an_odd_file_of_a_model_folder(name, value, model, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "hen_jax.json").unlink(missing_ok=True)
    (folder / name).write_text(json.dumps(value))
    assert name in one_line(capsys, "import", folder, tmp_path / "out")


BASE = {"folder": "m", "weights_sha256": "0", "model": {}}
ADAPTER = {"rank": "x"}
RUNS = [
    *({}, {"config": []}, {"config": {}}, {"config": {}, "base": BASE | {"model": []}}),
    *({"config": {"adapter": 3}, "base": BASE}, {"config": {"adapter": ADAPTER}, "base": BASE}),
    *({"config": {}, "base": BASE | {"folder": None}}, {"config": {}, "adapters": []}),
    *({"config": {}, "base": BASE, "adapters": {"a": 1}}, {"config": None}),
]


def unsealed(folder: Path, kind: str, fields: object) -> Path:
    """A folder with such a record and nothing else."""
    folder.mkdir()
    (folder / "hen_jax.json").write_text(json.dumps({"kind": kind, **fields}))
    return folder


@pytest.mark.parametrize("fields", RUNS, ids=str)
def test_an_odd_record_of_a_run(fields, tmp_path, capsys):
    run = unsealed(tmp_path / "run", "run", fields)
    out = tmp_path / "out"
    assert "hen_jax.json: " in one_line(capsys, "export", "--run", run, "--format", "hf",
                                        "--out", out)  # fmt: skip
    assert "hen_jax.json: " in one_line(capsys, "report", run, "--out", tmp_path / "r.html")


@pytest.mark.parametrize(
    "fields", [{}, {"config": []}, {"config": {"stages": [{}]}}, {"config": {"stages": 1}}], ids=str
)
def test_an_odd_record_of_a_pipeline(fields, tmp_path, capsys):
    run = unsealed(tmp_path / "all", "pipeline", fields)
    assert "hen_jax.json: " in one_line(capsys, "report", run, "--out", tmp_path / "r.html")


STEPS = [{}, {"steps": []}, {"steps": {"a": 1}}, {"steps": {"a": {}}}]
STEPS += [{"steps": {"a": {"inputs": {}, "seconds": "x"}}}]
ROUTER = {"names": ["a"], "temperature": 1.0, "threshold": 0.5, "reading": {},
          "base": {"folder": "m", "weights_sha256": "0", "layer": 1}}  # fmt: skip
ROUTERS = [{key: ROUTER[key] for key in ROUTER if key != lost} for lost in ROUTER]
ROUTERS += [ROUTER | {key: value} for key in ROUTER for value in (None, 10**400, [1], float("nan"))]
ROUTERS += [ROUTER | {"temperature": 0}, ROUTER | {"reading": {"turns": "x"}}]
HEADS = [{}, {"heads": []}, {"heads": {"a": 1}}, {"heads": {}, "config": {"width": "x"}}]
READERS = [
    *(("pipeline", read_steps, fields) for fields in STEPS),
    *(("router", read_router, fields) for fields in ROUTERS),
    *(("identifier", load_identifier, fields) for fields in HEADS),
]


@pytest.mark.parametrize(
    ("kind", "read", "fields"),
    READERS,
    ids=lambda value: getattr(value, "__name__", str(value)[:60]),
)
def test_an_odd_record_of_another_kind(kind, read, fields, tmp_path):
    with pytest.raises(InputError, match=r"hen_jax\.json: ") as raised:
        read(unsealed(tmp_path / "folder", kind, fields))
    assert len(str(raised.value).replace(str(tmp_path), "")) < 200


TOML = {"lists": "a=" + "[" * 3000, "tables": "a=" + "{a=" * 500, "digits": "a=" + "9" * 5000}


@pytest.mark.parametrize("text", TOML.values(), ids=TOML)
@pytest.mark.parametrize("flag", ["--patterns", "--materials"])
def test_a_toml_file_that_no_reader_takes(flag, text, tmp_path, capsys):
    file, replies = tmp_path / "odd.toml", tmp_path / "r.jsonl"
    file.write_text(text)
    replies.write_text("")
    words = ["synthesize", "--backend", f"replay:{replies}", "--out", tmp_path / "out", flag, file]
    assert "odd.toml: no valid TOML" in one_line(capsys, *words)


PEFT = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
LARGE = 10**400


@pytest.mark.parametrize(
    "fields",
    [
        *({key: value} for key in ("rank_pattern", "alpha_pattern")
          for value in (-1, {"q_proj": "x"}, {"q_proj": None}, [1], {"q_proj": LARGE})),
        *({"rank_pattern": {"q_proj": value}} for value in (0, -1, 8.5)),
        *({"r": value} for value in (LARGE, 0, 2**31, "x" * 5000)),
        *({"lora_alpha": value} for value in (LARGE, float("nan"), "x" * 5000)),
        *({"modules_to_save": value} for value in (-1, "score", [{}], ["x" * 5000])),
        *({"target_modules": -1}, {"target_modules": [1] * 5000}, {"x" * 5000: "y" * 5000}),
        *({"bias": "x" * 5000}, {"task_type": "x" * 5000}, {"init_lora_weights": "x" * 5000}),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_an_odd_config_of_an_adapter(fields, tmp_path):
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(PEFT))
    assert read_settings(file).rank == 8
    file.write_text(json.dumps(PEFT | fields))
    with pytest.raises(InputError, match=r"adapter_config\.json: ") as raised:
        read_settings(file)
    assert len(str(raised.value).replace(str(file), "")) < 250


def test_links_that_go_round_in_a_circle(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    loop = folder / "loop.jsonl"
    loop.symlink_to(loop.name)
    other = tmp_path / "other.jsonl"
    other.write_text("")
    assert "loop.jsonl" in one_line(capsys, "data", "stats", folder, "--schema", "messages")
    assert "other.jsonl exists" in one_line(capsys, "data", "scrub", loop, "--out", other)
    assert "loop.jsonl" in one_line(capsys, "import", loop, tmp_path / "out")


@pytest.mark.parametrize("where", ["http://éé..b/#x", "http://127.0.0.1:9/#x\udcff"], ids=ascii)
def test_an_endpoint_that_no_request_can_name(where, capsys):
    words = ["generate", "--backend", f"endpoint:{where}", "--prompt", "hi", "--tries", "1"]
    assert "endpoint" in one_line(capsys, *words)


@pytest.mark.parametrize(
    "body",
    [
        "raise ZeroDivisionError('a\\nb')",
        "return get_config()",
        "import sys; sys.exit(3)",
        "import sys; sys.exit(0)",
        "return None",
    ],
)
def test_a_config_file_that_fails(body, tmp_path, capsys):
    file = tmp_path / "odd.py"
    file.write_text(f"def get_config():\n  {body}\n")
    assert "odd.py" in one_line(capsys, "run", f"--config={file}", f"--workdir={tmp_path / 'w'}")
    file.write_text("def get_config(one: 'Nothing' = 1):\n  return None\n")
    with pytest.raises(InputError, match=r"odd\.py: NameError"):
        read_run_config(str(file))


@pytest.mark.parametrize("name", [["sft"], {}, None, "x" * 5000], ids=lambda one: str(one)[:20])
def test_a_recipe_that_is_no_name(name):
    with pytest.raises(InputError, match=r"^config\.recipe is .{0,60}; allowed"):
        stage_of(name)

"""`hen serve` as it is started and stopped, and what it refuses before it begins."""

import socket

import pytest
import tiny_server
from tiny_server import running

from hen_jax import cli
from hen_jax.runs.earlier import previous_run
from hen_jax.verbs.serve.model import ServeRequest, open_served


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_server.write_folders(tmp_path_factory.mktemp("command"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "give --model FOLDER, or --run FOLDER"),
        (("--model=nowhere",), "nowhere"),
        (("--model={base}", "--expert=calm"), "give NAME=FOLDER"),
        (("--model={base}", "--expert=a={calm}", "--expert=a={brisk}"), "two experts"),
        (("--model={base}", "--expert=auto={calm}"), "cannot be called 'auto'"),
        (("--model={base}", "--expert=a={base}"), "adapter_config.json"),
        (("--model={base}", "--expert=a={calm}", "--max-experts=0"), "--max-experts is 0"),
        (("--model={base}", "--places=5000"), "the model has 2048 positions"),
        (("--model={base}", "--rows=0"), "rows"),
        (("--model={base}", "--queue=-1"), "queue is -1"),
        (("--model={base}", "--timeout=0"), "timeout is 0"),
        (("--model={base}", "--host=nobody.invalid"), "cannot listen on nobody.invalid"),
        (("--model={base}", "--port=99999"), "cannot listen"),
        (("--run={base}",), "says 'hf_model'"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(folders, capsys, flags, says):
    words = [flag.format(**folders) for flag in flags]
    assert cli.main(["serve", "--port=0", "--no-warm-up", *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert says in told[0]


def test_a_port_that_is_taken_is_told(folders, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["serve", f"--model={folders['base']}", f"--port={port}"]) == 2
    assert f"port {port}" in capsys.readouterr().err


@pytest.mark.slow  # trains and exports
def test_a_run_of_experts_is_served_as_its_exports_are(tmp_path, capsys):
    run = tmp_path / "run"
    given = ["--config.epochs=0.2", "--config.optimizer.learning_rate=0.05"]
    assert cli.main(["run", "--config=experts:tiny", f"--workdir={run}", *given]) == 0
    names = previous_run(run).adapters
    assert len(names) > 1
    small = {"rows": 2, "places": 256, "warm_up": False}
    lines = []
    for name in names:
        out = tmp_path / name
        words = ["export", f"--run={run}", f"--expert={name}", "--format=peft", f"--out={out}"]
        assert cli.main(words) == 0
        lines.append(f"{name}={out}")
    capsys.readouterr()
    replies = []
    for request in (
        ServeRequest(run=run, **small),
        ServeRequest(model=previous_run(run).base, experts=tuple(lines), **small),
    ):
        served = open_served(request)
        with running(served) as at:
            listed = [one["id"] for one in at.ask("/v1/models").json["data"]]
            assert listed[1:] == list(names)
            body = {"prompt": "It rains.", "max_tokens": 12, "temperature": 0}
            told = [at.ask("/v1/completions", body | {"model": name}) for name in listed]
            replies.append([one.json["choices"][0]["text"] for one in told])
        served.worker.stop()
    assert replies[0] == replies[1]
    assert len(set(replies[0])) > 1
    assert cli.main(["serve", f"--run={run}", "--model=elsewhere"]) == 2
    assert "leave --model out" in capsys.readouterr().err

"""`hen chat` as a person at a terminal sees it, and what each line makes of a conversation."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys

import pytest
from tiny_run import environment

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Message, Reply
from hen_jax.verbs.generate import chat
from hen_jax.verbs.generate.chat import Talk, answer


def recorded(path, *talks):
    """A replay file of conversations that alternate, each line up to one reply."""
    rows = []
    for talk in talks:
        said = [
            {"role": "assistant" if place % 2 else "user", "content": text}
            for place, text in enumerate(talk)
        ]
        rows.append({"messages": said[:-1], "reply": talk[-1]})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


TAKE = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)  # of a new session, the first is the one that rules it
for stream in range(3):
    os.dup2(terminal, stream)
os.execv(sys.executable, [sys.executable, "-m", "hen_jax", "chat", *sys.argv[2:]])
"""


class Terminal:
    """A `hen chat` behind a pseudo-terminal."""

    def __init__(self, folder, *arguments):
        self.ours, self.theirs = pty.openpty()
        command = [sys.executable, "-c", TAKE, os.ttyname(self.theirs), *arguments]
        self.process = subprocess.Popen(command, env=environment(folder), start_new_session=True)
        self.seen = ""  # and not yet looked for

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def until(self, text: str, seconds: float = 60) -> None:
        """Reads up to `text`."""
        while text not in self.seen:
            assert select.select([self.ours], [], [], seconds)[0], self.seen
            self.seen += os.read(self.ours, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def interrupt(self, text: str) -> None:
        """Presses Ctrl-C until `text` comes: Python misses one that comes just before it waits."""
        for _ in range(30):
            self.say("\x03")
            with contextlib.suppress(AssertionError):
                self.until(text, seconds=2)
                return
        raise AssertionError(self.seen)

    def say(self, line: str) -> None:
        os.write(self.ours, line.encode())


@pytest.fixture
def terminal(tmp_path):
    path = recorded(
        tmp_path / "said.jsonl",
        ["Hi", "Hello."],
        ["Hi", "Hello.", "我累了", "先休息一下吧。"],
        ["Hi", "Hello.", "我累了", "Rest a little."],
    )
    with contextlib.closing(Terminal(tmp_path, "--backend", f"replay:{path}")) as opened:
        yield opened


def test_a_conversation_in_a_terminal(terminal, tmp_path):
    terminal.until("Ctrl-D leaves")
    terminal.until("> ")
    terminal.say("Hi\n")
    terminal.until("Hello.")
    terminal.say("我累了\n")
    terminal.until("先休息一下吧。")
    terminal.say("/regenerate\n")
    terminal.until("Rest a little.")
    terminal.until("> ")  # before that Ctrl-C stops what is being done
    terminal.interrupt("[Ctrl-D leaves]")
    terminal.say("Nobody recorded this\n")
    terminal.until("has no reply to the conversation")
    terminal.say(f"/save {tmp_path / 'talk.json'}\n")
    terminal.until("[4 messages in")
    terminal.until("> ")
    terminal.say("\x04")
    assert terminal.process.wait(30) == 0
    said = [row["content"] for row in json.loads((tmp_path / "talk.json").read_text())]
    assert said == ["Hi", "Hello.", "我累了", "Rest a little."]


def speaking(seeds):
    def teller(messages, seed):
        seeds.append(seed)
        yield f"{len(messages)} messages, "
        yield f"draw {seed}"
        return Reply(f"{len(messages)} messages, draw {seed}")

    return teller


def test_each_line_makes_the_next_conversation(capsys):
    seeds = []
    talk = Talk(None)
    for line in ("", "Hi", "/regenerate", "/system Be short.", "And?", "/help"):
        talk = answer(line, talk, speaking(seeds), 2**32 - 1)
    assert seeds == [2**32 - 1, 0, 1]
    assert talk.messages == (
        Message("system", "Be short."),
        Message("user", "Hi"),
        Message("assistant", "1 messages, draw 0"),
        Message("user", "And?"),
        Message("assistant", "4 messages, draw 1"),
    )
    assert "/regenerate" in capsys.readouterr().out
    assert answer("/system", talk, speaking(seeds), 0).system is None
    assert answer("/reset", talk, speaking(seeds), 0).messages == (Message("system", "Be short."),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/regenerate", "nothing was said yet"),
        ("/save", "where to"),
        ("/save {tmp}/x.json", "nothing was said yet"),
        ("/dance", "/dance is no command"),
        ("\udcff", "which is no character"),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        answer(line.format(tmp=tmp_path), Talk(None), speaking([]), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    talk = answer("Hi", Talk(None), speaking([]), 0)
    with pytest.raises(InputError, match="is not what hen_jax wrote there"):
        answer(f"/save {tmp_path / 'mine.json'}", talk, speaking([]), 0)
    assert (tmp_path / "mine.json").read_text() == "mine"


def test_ctrl_c_stops_a_reply_and_takes_back_the_question(tmp_path, monkeypatch, capsys):
    lines = iter(["Hi", "Slow", "/save {}".format(tmp_path / "t.json")])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or _end())

    closed = []

    def teller(messages, seed):
        try:
            yield "Hel"
            if messages[-1].content == "Slow":
                signal.raise_signal(signal.SIGINT)
            yield "lo."
        finally:
            closed.append(messages[-1].content)
        return Reply("Hello.")

    monkeypatch.setattr(chat, "open_teller", lambda *_: teller)
    path = recorded(tmp_path / "said.jsonl", ["x", "y"])
    assert cli.main(["chat", "--backend", f"replay:{path}"]) == 0
    told = capsys.readouterr().out
    assert "Hello.\nHel\n[stopped]" in told
    assert closed == ["Hi", "Slow"]
    said = [row["content"] for row in json.loads((tmp_path / "t.json").read_text())]
    assert said == ["Hi", "Hello."]


def _end():
    raise EOFError

"""The page in a browser without a window: what a person does with it, by its keys and buttons."""

import queue
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny_server
from tiny_server import opened, running

from hen_jax.serving import page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_server.write_folders(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def at(folders):
    with opened(folders, name="base") as served, running(served) as address:
        yield address


def test_the_page_loads_nothing_from_elsewhere(at):
    told = at.ask("/")
    assert told.headers["content-security-policy"].startswith("default-src 'none'")
    for name in ("page.css", "page.js"):
        assert f'"page/{name}"'.encode() in told.raw
        text = at.ask(f"/page/{name}")
        assert text.status == 200
        assert b"//" not in text.raw.replace(b"// ", b"")  # no address of another host
    assert at.ask("/page/../app.py").status == 404


def test_the_page_is_not_shown_within_another(at):
    assert "frame-ancestors 'none'" in at.ask("/").headers["content-security-policy"]


@pytest.mark.slow  # a browser
def test_a_conversation_by_keys_and_buttons(folders, tmp_path, monkeypatch):
    assert BROWSER is not None, "install Chromium"
    acting = tmp_path / "files"
    shutil.copytree(page.FOLDER, acting)
    shutil.copy(Path(__file__).with_name("page_acts.js"), acting / "acts.js")
    index = acting / "index.html"
    index.write_text(
        index.read_text().replace("</head>", '<script src="page/acts.js" defer></script></head>')
    )
    monkeypatch.setattr(page, "FOLDER", acting)
    told: queue.Queue[str] = queue.Queue()
    with opened(folders, name="base") as served, running(served, heard=told.put) as at:
        address = at.url.removesuffix("v1")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/own"]
        with subprocess.Popen(
            [BROWSER, *flags, "--remote-debugging-port=0", address], stderr=subprocess.DEVNULL
        ) as browser:
            try:
                lines = told.get(timeout=120).splitlines()
            finally:
                browser.terminate()
    assert len(lines) == 13
    assert [line for line in lines if not line.startswith("ok ")] == []

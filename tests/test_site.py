"""The documentation site: built strictly, whole, and without anything from elsewhere."""

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import browser

ROOT = Path(__file__).parents[1]
NAMES = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*\shref=["']?(?:https?:)?//"""
)
"""What a browser would fetch from another host; links that a reader follows are none of it."""


def build(config: Path, out: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(config),
        "-d",
        str(out),
    ]
    environ = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=config.parent, env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


def test_it_is_whole(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"readme", "contributing", "launching"} <= {
        one.stem for one in site.glob("*.html")
    }
    reference = (site / "reference.html").read_text("utf-8")
    assert not [name for name in NAMES if f'id="{name}"' not in reference]
    assert "A config opened as" in reference


def test_it_loads_nothing_from_elsewhere(site):
    for page in site.glob("*.html"):
        assert not FETCHED.search(page.read_text("utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text("utf-8"))
    assert FETCHED.search('<link rel="stylesheet" href="https://fonts.example/a.css">')
    assert not FETCHED.search('<a href="https://arxiv.org/abs/1">a paper</a>')


def test_a_browser_opens_a_page_without_the_network(site, tmp_path):
    with browser(tmp_path) as page:
        page.open(site / "concepts.html")
        for width in (390, 1280):
            page.show(width)
            assert page.of("document.documentElement.scrollWidth") <= width
        assert page.of("document.querySelectorAll('pre').length") > 5
        assert not [one for one in page.requested if not one.startswith(("file:", "data:"))]
        assert not page.told


@pytest.mark.parametrize("link", ["[gone](gone.md)", "[gone](index.md#gone)"])
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, link):
    written = (ROOT / "mkdocs.yml").read_text("utf-8")
    validation = written[written.index("\nvalidation:") : written.index("\nnav:")]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# One\n\n{link}\n", "utf-8")
    (tmp_path / "mkdocs.yml").write_text(f"site_name: one\n{validation}\n", "utf-8")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "out").returncode != 0


def test_links_out_of_the_folder_become_pages_or_paths():
    relinked = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))["relinked"]
    assert relinked("[a](docs/data.md#files)", "README.md") == "[a](data.md#files)"
    assert relinked("[a](../launch/README.md)", "docs/a.md") == "[a](launching.md)"
    assert (
        relinked("[`local.sh`](local.sh)", "launch/README.md") == "`local.sh` (`launch/local.sh`)"
    )
    assert relinked("[a](https://b.c/d) [e](#f)", "README.md") == "[a](https://b.c/d) [e](#f)"
    assert relinked("![a](emcl.png)", "docs/emcl.md") == "![a](emcl.png)"


def told() -> Iterator[str]:
    """Every text in the code, with `…` for what is put into it."""
    for path in (ROOT / "hen_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


TOLD = list(told())
MESSAGES = re.findall(r"^> (.+)$", (ROOT / "docs" / "faq.md").read_text("utf-8"), re.MULTILINE)


def is_told(message: str) -> bool:
    """Whether the parts of a message, split at `…`, stand in one text of the code in order, or
    those before a `; ` in one that ends with `; …`, and those after it at the start of another."""
    if any(pattern(message).search(text) for text in TOLD):
        return True
    before, _, after = message.partition("; ")
    first = re.compile(pattern(before).pattern + "; …$", re.DOTALL)
    return any(map(first.search, TOLD)) and any(map(pattern(after).match, TOLD))


def pattern(message: str) -> re.Pattern:
    return re.compile(".*".join(map(re.escape, message.strip("…").split("…"))), re.DOTALL)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_faq_is_one_of_the_code(message):
    assert is_told(message)


@pytest.mark.parametrize(
    "message",
    [
        "…: no such field; have you meant …?",
        "… holds a run with other settings (…); start over",
        "… holds a run with other sittings (…)",
    ],
)
def test_a_message_that_nobody_gives_is_seen(message):
    assert len(MESSAGES) > 15
    assert not is_told(message)

"""What the site has beside the pages of this folder: pages of the checkout, and docstrings.

mkdocs calls these functions (`hooks` in mkdocs.yml).
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "launch/README.md": "launching.md",
    "benchmarks/RESULTS.md": "results.md",
}
"""Pages of the checkout -> what the site calls them."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from elsewhere, and the reference."""
    for source, name in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=relinked(text, source)))
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "reference.md", content=reference(api)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The links of the pages of this folder."""
    if page.file.generated_by:
        return markdown
    return relinked(markdown, f"docs/{page.file.src_uri}")


def relinked(text: str, source: str) -> str:
    """A page of the checkout with its links as the site has them.

    A link to a file that is no page becomes that file's path from the root of the checkout, since
    the site does not hold it.
    """

    def one(found: re.Match) -> str:
        picture, words, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if "://" in target or not path:
            return found.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path in ELSEWHERE or path.startswith("docs/"):
            page = ELSEWHERE.get(path, path.removeprefix("docs/"))
            return f"{picture}[{words}]({page}{hash_}{anchor})"
        return words if path in words else f"{words} (`{path}`)"

    return _LINK.sub(one, text)


def reference(api: str) -> str:
    """The docstring of every name that docs/api.md lists, under its headings."""
    lines = ["# Docstrings", "", "Of every name of [the public surface](api.md).", ""]
    for line in api.splitlines():
        if line.startswith("## "):
            lines += [f'<h2 class="of-names">{line.removeprefix("## ")}</h2>', ""]
        elif found := re.match(r"\| `([\w.]+)` \|", line):
            lines += [f"::: {found.group(1)}", ""]
    return "\n".join(lines)

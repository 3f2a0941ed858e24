"""`hen report`: a run or a pipeline told in one page that needs no network and no script."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.verbs.report.folder import read_story
from hen_jax.verbs.report.sections import page_values

REPORT_FILE = "report.html"
"""The report of a pipeline, in its work directory."""

PAGE = Path(__file__).parent / "page"
"""The page's template and style."""


def report(folder: Path, out: Path) -> None:
    """Writes the report of the run or pipeline in `folder` to the HTML file `out`.

    Raises:
      InputError: there is neither, a file of it is damaged, or `out` is somebody else's.
    """
    require_no_link(out)
    require_ours(out)
    text = render_page(page_values(read_story(folder)))
    page = text.encode("utf-8", "backslashreplace")  # a log may hold half a character
    with output_files(out) as (staged,):
        staged.write_bytes(page)
    print(f"wrote {out} ({len(page) / 1e3:,.0f} kB)")


def render_page(values: Mapping[str, Any]) -> str:
    """The page; whatever is said in `values` is escaped, but for charts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only here

    pages = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"num": _number, "interval": _interval, "words": _words}
    style = (PAGE / "report.css").read_text(encoding="utf-8")
    return pages.get_template("report.html.jinja").render(**values, style=style)


def _number(value: Any) -> str:
    """A figure to four digits; of what is not known "n/a"."""
    if value is None:
        return "n/a"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _interval(row: Mapping[str, Any]) -> str:
    """ "0.41 to 0.62", or that there is none."""
    low, high = row.get("low"), row.get("high")
    return "none" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _words(name: str) -> str:
    """A name of the code for people: `bag_of_words` is "bag of words"."""
    return name.replace("_", " ")

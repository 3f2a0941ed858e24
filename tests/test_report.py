"""The report: what it says of a run, its charts, and that no text of a model becomes markup."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import chromium
import pytest

from hen_jax import cli
from hen_jax.core.files import read_json, write_json
from hen_jax.verbs.report.aspects import aspect_of, aspects_of, beyond_chance, is_safety
from hen_jax.verbs.report.charts import ChartInterval, Curve, intervals, lines, ticks
from hen_jax.verbs.report.folder import read_story
from hen_jax.verbs.report.report import PAGE, render_page
from hen_jax.verbs.report.results import better
from hen_jax.verbs.report.sections import improvement, in_short, page_values

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \" onmouseover='x' {{ 7*7 }} &amp;"


class Tags(HTMLParser):
    """What a page holds: its tags, whether each was closed, and its ids."""

    EMPTY = ("meta", "link", "input", "img", "path", "circle", "line", "br")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


@pytest.fixture
def run(tiny_finished, tmp_path) -> Path:
    """A finished run, with replies of two moments and figures of `hen evaluate`."""
    folder = tmp_path / "a run & <b>more"
    shutil.copytree(tiny_finished, folder)
    last = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    (folder / "replies").mkdir()
    for step, text in ((0, "I see."), (last, HOSTILE)):
        write_json(folder / "replies" / f"{step}.json", [{"id": "hed-1", "reply": text}])
    (folder / "evaluate").mkdir()
    write_json(folder / "evaluate" / "results.json", {"figures": ROWS, "not_measured": MISSED})
    return folder


def row(**changes):
    fields = {
        "suite": "high_context", "arm": "sft", "measure": "length", "group": "all", "value": -4.0,
        "low": -6.0, "high": -2.0, "n": 32, "clusters": 8, "missing": 0, "better": "lower",
        "against": "base", "p": 0.001, "p_holm": 0.004, "judge": "", "about": "",
    }  # fmt: skip
    return fields | changes


MISSED = [{"suite": "crossed", "arm": "recorded", "why": "it has no likelihood"}]
ROWS = [
    row(),
    row(arm=HOSTILE, against="", p=None, p_holm=None, value=21.0, low=19.0, high=23.0),
    row(measure="accuracy", suite="crossed", group="emotion", value=0.02, low=-0.1, high=0.1),
    row(suite="safety", measure="crisis_hand_off", against="", value=0.5, low=0.2, high=0.8),
]


def test_a_page_of_a_run_names_its_data_hashes_and_results(run, tmp_path):
    out = tmp_path / "report.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    text = out.read_text()
    record = read_json(run / "hen_jax.json")
    for said in (
        "shipped:hed/hed.en.jsonl",
        record["base"]["weights_sha256"],
        record["base"]["tokenizer_sha256"],
        "Hide who said what",
        "crisis hand off",
        "length of all improved by -4",
        "No difference that these items can show",
        "no therapist",
        "Not measured by crossed of recorded: it has no likelihood.",
    ):
        assert said in text, said
    tags = read(text)
    assert tags.tags.count("svg") >= 4
    ids = [value for _, name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    linked = {value[1:] for tag, name, value in tags.attributes if (tag, name) == ("a", "href")}
    assert linked <= set(ids)


def test_nothing_that_is_said_becomes_markup_and_nothing_is_fetched(run):
    story = read_story(run)
    text = render_page(page_values(story))
    tags = read(text)
    assert not {"script", "img", "iframe", "object", "b"} & set(tags.tags)
    assert not [one for one in tags.attributes if one[1].startswith("on")]
    assert text.count("&lt;script&gt;alert(1)") == 2  # a reply, and the name of an arm
    assert "{{ 7*7 }}" in text
    for tag, name, value in tags.attributes:
        if name in ("src", "href", "action", "data", "srcset"):
            assert value == "data:," or value.startswith("#"), (tag, value)
    assert "url(" not in text
    assert "@import" not in text
    policy = [value for tag, name, value in tags.attributes if (tag, name) == ("meta", "content")]
    assert any("default-src 'none'" in one and "script" not in one for one in policy)


def test_a_run_without_replies_evaluation_or_log_is_told_too(tiny_finished, tmp_path):
    shutil.copytree(tiny_finished, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "goodput.json").unlink()
    text = render_page(page_values(read_story(tmp_path / "run")))
    read(text)
    for said in ("nothing was measured", "It is not finished", "Not measured.", "Not run:"):
        assert said in text
    assert "Replies side by side" not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none", "is no folder of a run or a pipeline"),
        (lambda path: path, "is no folder of a run or a pipeline"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_a_line(tmp_path, capsys, make, message):
    assert cli.main(["report", str(make(tmp_path)), "--out", str(tmp_path / "a.html")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_a_file_of_somebody_else_is_not_replaced(run, tmp_path, capsys):
    out = tmp_path / "mine.html"
    out.write_text("mine")
    assert cli.main(["report", str(run), "--out", str(out)]) == 2
    assert "is not what hen_jax wrote there" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_replies_stand_in_a_blind_order_that_does_not_follow_the_arms(run):
    (asked,) = read_story(run).asked
    assert [said.arm for said in asked.said] == ["base", run.name]
    assert sorted(said.blind for said in asked.said) == [0, 1]
    # A letter goes with the place, so which arm is A differs from prompt to prompt.
    first = set()
    for number in range(20):
        for path in (run / "replies").glob("*.json"):
            write_json(path, [{"id": f"hed-{number}", "reply": path.stem}])
        (asked,) = read_story(run).asked
        first.add(next(said.arm for said in asked.said if said.blind == 0))
    assert first == {"base", run.name}


def test_a_stage_that_did_not_improve_is_told_so():
    held = {"suite": "held_out", "measure": "loss", "group": "all"}
    assert improvement({**held, "before": 2.0, "value": 1.5}) == (
        "better",
        "held-out loss 2 before, 1.5 after: it improved by 0.5.",
    )
    verdict, text = improvement({**held, "before": 2.0, "value": 2.0})
    assert (verdict, "did not improve" in text) == ("worse", True)
    pairs = {"suite": "preferences", "measure": "accuracy", "group": "crossed", "value": 0.6}
    assert improvement({**pairs, "low": 0.51, "high": 0.7})[0] == "better"
    verdict, text = improvement({**pairs, "low": 0.49, "high": 0.7})
    assert (verdict, "no better than chance" in text) == ("worse", True)
    assert improvement({**held, "before": None, "value": 2.0})[0] == ""


def test_the_short_line_of_a_run_is_of_its_log(run):
    (story,) = read_story(run).runs
    logged = [line["loss"] for line in story.lines if line["kind"] == "eval"]
    assert in_short(story)["text"].startswith(
        f"held-out loss {logged[0]:.4g} before, {logged[-1]:.4g} after"
    )
    assert story.finished
    assert story.updates == max(line["step"] for line in story.lines)


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [("loss", "lower"), ("accuracy/crossed", "higher"), ("reward", "higher"), ("kl", "")],
)
def test_the_better_direction_of_a_measure(measure, wanted):
    assert better(measure) == wanted


def test_a_difference_counts_where_its_interval_leaves_out_0_after_the_correction():
    assert beyond_chance(row())
    assert not beyond_chance(row(high=0.1))
    assert not beyond_chance(row(p_holm=0.06))
    assert not beyond_chance(row(low=None, high=None))
    assert beyond_chance(row(p_holm=None))


def test_differences_are_sorted_by_aspect_and_worded_by_direction():
    assert aspect_of(row()).name == "Length"
    assert aspect_of(row(suite="crossed", measure="accuracy")).name.startswith("Recognition")
    assert aspect_of(row(suite="experts", measure="persistence")).name.startswith("Appropriate")
    assert aspect_of(row(suite="x", measure="y")).name == "Other measures"
    assert aspect_of(row(measure="emotion_words")).name.startswith("Appropriateness")
    assert aspect_of(row(suite="empathy", measure="emp_reward")).name.startswith("Appropriateness")
    assert is_safety(row(suite="safety", measure="refers_in_crisis"))
    assert is_safety(row(suite="counterfactuals", measure="same_as_near"))
    assert not is_safety(row())
    told = {one["name"]: one["text"] for one in aspects_of([row(), row(value=4.0, low=2, high=6)])}
    assert told == {
        "Length": "sft: length of all improved by -4; sft: length of all got worse by +4."
    }
    (other,) = aspects_of([row(better="")])
    assert "changed by -4" in other["text"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.2, 7.9), (1e-6, 4e-6), (0.0, 65000.0), (5.4, 5.6)]
)
def test_ticks_are_round_and_within(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-12 <= one <= high + 1e-12 for one in found)
    step = found[1] - found[0]
    leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(leading - one) for one in (1, 2, 5, 10)) < 1e-6


def test_a_line_is_broken_where_a_value_is_missing_and_goes_up_where_it_grows():
    text = lines("t", "x", "y", [Curve("a", [0, 1, 2, 3, 4], [0.0, 1.0, None, 1.0, math.nan])])
    (path,) = re.findall(r' d="([^"]+)"', text)
    points = re.findall(r"([ML])([\d.]+) ([\d.]+)", path)
    assert [kind for kind, _, _ in points] == ["M", "L", "M"]
    assert float(points[1][2]) < float(points[0][2])  # up is less
    assert float(points[0][1]) < float(points[1][1]) < float(points[2][1])
    assert lines("t", "x", "y", [Curve("a", [], [])]) == ""
    assert lines("t", "x", "y", [Curve("a", [1], [None])]) == ""


def test_an_interval_is_drawn_from_low_to_high_around_its_value():
    text = intervals(
        "t", "x", [ChartInterval("a <b>", 0.6, 0.5, 0.7), ChartInterval("c", 0.4)], at=0.5
    )
    (left, right), (zero, _) = (
        [
            float(one)
            for one in re.search(rf'class="{kind}" x1="([\d.]+)".*?x2="([\d.]+)"', text).groups()
        ]
        for kind in ("range", "zero")
    )
    dots = [float(one) for one in re.findall(r'class="dot" cx="([\d.]+)"', text)]
    assert left == zero < dots[0] < right
    assert dots[0] - left == pytest.approx(right - dots[0], abs=0.11)
    assert dots[1] < zero
    assert text.count('class="range"') == 1
    assert "a &lt;b&gt;" in text
    read(text)


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(one * 2 for one in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_lines_have_contrast(place):
    style = (PAGE / "report.css").read_text()
    blocks = re.findall(r":root \{([^}]*)\}", style)
    colours = dict(re.findall(r"--([\w]+): (#[0-9a-f]+)", blocks[place]))
    for text in ("ink", "soft", "link", "good", "bad"):
        for paper in ("paper", "panel"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
    for line in range(6):
        assert contrast(colours[f"s{line}"], colours["paper"]) >= 3, line


@pytest.mark.slow  # needs a browser: apt-get install chromium
def test_in_a_browser_it_opens_toggles_by_keyboard_and_asks_for_nothing(run, tmp_path):
    out = tmp_path / "report.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    with chromium.browser(tmp_path / "profile") as page:
        page.open(out)
        seen = "getComputedStyle(document.querySelector('.{}')).display"
        assert (page.of(seen.format("named")), page.of(seen.format("unnamed"))) != ("none", "none")
        assert page.of(seen.format("unnamed")) == "none"
        page.of("document.getElementById('blind').focus()")
        page.press(" ", 32, " ")
        assert page.of("document.getElementById('blind').checked") is True
        assert page.of(seen.format("named")) == "none"
        assert page.of(seen.format("unnamed")) != "none"
        for width in (320, 1280):
            page.show(width)
            assert page.of("document.documentElement.scrollWidth") <= width
        backgrounds = []
        for scheme in ("light", "dark"):
            page.show(800, scheme)
            backgrounds.append(page.of("getComputedStyle(document.body).backgroundColor"))
        assert backgrounds == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]
        page.printed(tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes()[:5] == b"%PDF-"
        assert page.told == []
        assert [one for one in page.requested if not one.startswith(("file:", "data:"))] == []


def test_the_settings_of_a_run_are_shown_as_json(run):
    (values,) = page_values(read_story(run))["runs"]
    assert json.loads(values["settings"])["seed"] == 0


def row_of(**changed):
    """The text of `results.json` with one figure, changed."""
    return json.dumps({"figures": [ROWS[0] | changed], "not_measured": []})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("results.json", "{}", "results.json: figures is missing"),
        ("results.json", row_of(n="x"), "results.json: figures[0].n is 'x'; it must be"),
        ("results.json", row_of(arm=3), "results.json: figures[0].arm is 3; it must be text"),
        (
            "results.json",
            row_of(controls=["x"]),
            "results.json: figures[0].controls is ['x']; it must be",
        ),
        (
            "results.json",
            '{"figures": [], "not_measured": [7]}',
            "results.json: not_measured[0] is 7; it must be an object",
        ),
        ("samples.jsonl", '{"id": "a/1"}\n', "samples.jsonl:1: damaged"),
        ("samples.jsonl", '{"id": "a/1", "mess', "samples.jsonl:1: damaged"),
    ],
)
def test_a_damaged_evaluation_is_told_in_a_line(run, tmp_path, capsys, name, text, message):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "evaluate" / name).write_text(text)
    assert cli.main(["report", str(copy), "--out", str(tmp_path / "a.html")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()

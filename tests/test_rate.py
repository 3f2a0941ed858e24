"""`hen rate`: sheets, sides, undo, consent, a reload and a restart in the middle, and back."""

import dataclasses
import http.client
import json
import random
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import fuzzed
import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.measures.people.store import SESSION, VOTES, open_votes
from hen_jax.measures.people.web import LARGEST_BODY, make_server, respond
from hen_jax.verbs.rate import RatingPage, plan_of, read_checklist, welcome


def lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def rating(tmp_path) -> RatingPage:
    rows = [
        {"id": f"i{n}", "prompt": f"Ask {n}.", "chosen": f"first {n}", "rejected": f"second {n}"}
        for n in range(6)
    ]
    items = lines(tmp_path / "pairs.jsonl", rows)
    return RatingPage(items, "preference", "choices", tmp_path / "out", raters=("ann", "bo"))


@contextmanager
def opened(rating: RatingPage):
    with open_votes(rating.out, plan_of(rating)) as store:
        yield store, {rater: f"/r/{token}" for token, rater in store.tokens.items()}


def ask(store, path: str, said: object = None) -> tuple[int, dict]:
    method = "GET" if said is None else "POST"
    found = respond(store, method, path, json.dumps(said).encode() if said is not None else b"")
    return found.status, json.loads(found.body)


def vote_all(store, link: str, better: str) -> None:
    """Chooses whichever reply begins with `better`."""
    _, state = ask(store, f"{link}/consent", {})
    while state["item"]:
        side = "ab"[[text.startswith(better) for text in state["item"]["replies"]].index(True)]
        code, state = ask(store, f"{link}/vote", {"id": state["item"]["id"], "choice": side})
        assert code == 200


def test_votes_are_read_by_data_ratings(rating, tmp_path, capsys):
    with opened(rating) as (store, links):
        vote_all(store, links["ann"], "first")
        vote_all(store, links["bo"], "first")
        shown_first = [vote.exchanged for vote in store.votes if vote.rater == "ann"]
        assert sorted(shown_first) == [False] * 3 + [True] * 3  # sides are balanced
        _, found = ask(store, f"/h/{store.host}/progress")
        assert [one["done"] for one in found["raters"]] == [6, 6]
        assert "alpha" in found["agreement"]
    words = ["--kind=choices", f"--items={rating.items}", "--schema=preference"]
    code = cli.main(["data", "ratings", str(rating.out / VOTES), *words, f"--out={tmp_path / 'x'}"])
    assert code == 0
    rows = [json.loads(x) for x in (tmp_path / "x/pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert all(row["share"] == 1.0 and row["chosen"][0]["content"][:5] == "first" for row in rows)
    assert "2 annotators" in capsys.readouterr().out


def test_a_restart_in_the_middle_goes_on(rating):
    with opened(rating) as (store, links):
        _, state = ask(store, f"{links['ann']}/consent", {})
        code, after = ask(
            store, f"{links['ann']}/vote", {"id": state["item"]["id"], "choice": "tie"}
        )
        assert (code, after["done"]) == (200, 1)
        waiting = after["item"]
    with opened(rating) as (store, again):
        assert again == links  # the same links
        _, state = ask(store, f"{again['ann']}/state")
        assert (state["done"], state["consented"], state["item"]) == (1, True, waiting)
        code, found = ask(store, f"{again['ann']}/vote", {"id": "another", "choice": "a"})
        assert (code, found["error"]) == (
            400,
            "id: that is not the item to be rated now; reload the page",
        )
        ask(store, f"{again['ann']}/vote", {"id": waiting["id"], "choice": "a"})
        _, state = ask(store, f"{again['ann']}/undo", {})
        assert (state["done"], state["item"]) == (1, waiting)  # the last one, not the first
        _, state = ask(store, f"{again['ann']}/undo", {})
        assert state["done"] == 0
        assert ask(store, f"{again['ann']}/undo", {})[0] == 400


def test_consent_export_and_delete(rating):
    with opened(rating) as (store, links):
        code, state = ask(store, f"{links['bo']}/state")
        assert (code, state["consented"], state["item"]) == (200, False, None)
        first = store.plan.sheets["bo"][0].blind
        code, told = ask(store, f"{links['bo']}/vote", {"id": first, "choice": "a"})
        assert (code, told["error"]) == (400, "consent comes first")
        vote_all(store, links["bo"], "second")
        vote_all(store, links["ann"], "first")
        found = respond(store, "GET", f"{links['bo']}/export", b"")
        own = json.loads(found.body)
        assert found.filename == "my-ratings.json"
        assert {row["annotator"] for row in own} == {"bo"}
        assert {row["choice"] for row in own} == {"b"}
        _, state = ask(store, f"{links['bo']}/delete", {})
        assert (state["done"], state["consented"]) == (0, False)
    assert "bo" not in (rating.out / VOTES).read_text()
    assert "bo" not in json.loads((rating.out / SESSION).read_text())["consented"]


def test_nothing_shown_tells_sides_or_names(rating):
    with opened(rating) as (store, links):
        _, state = ask(store, f"{links['ann']}/consent", {})
        text = json.dumps(state)
        assert "exchanged" not in text
        assert '"i' + state["item"]["prompt"][4] + '"' not in text
        code, _ = ask(store, "/r/guess/state")
        assert code == 404
        assert ask(store, "/h/guess/progress")[0] == 404
        assert respond(store, "GET", "/static/../session.py", b"").status == 404


@pytest.mark.parametrize(
    "said",
    [{"choice": "c"}, {"choice": 1}, {}, {"choice": "a", "comment": 3},
     {"choice": "a", "checks": {"x": True}},
     {"choice": "a", "comment": "x" * 2001}],
)  # fmt: skip
def test_bad_votes_are_refused_in_a_line(rating, said):
    with opened(rating) as (store, links):
        _, state = ask(store, f"{links['ann']}/consent", {})
        code, found = ask(store, f"{links['ann']}/vote", {"id": state["item"]["id"], **said})
        assert code == 400
        assert "allowed" in found["error"]
        assert not store.votes
        assert respond(store, "POST", f"{links['ann']}/vote", b"\xff{").status == 400


def test_ratings_with_a_checklist(rating, tmp_path):
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    items = lines(
        tmp_path / "said.jsonl", [{"id": "1", "messages": said}, {"id": "2", "messages": said}]
    )
    listed = tmp_path / "checks.yaml"
    listed.write_text(
        "warm: {en: It is warm., zh: 温暖。}\nlong: {en: Too long., zh: 太长。}\n", "utf-8"
    )
    own = RatingPage(
        items, "messages", "ratings", tmp_path / "two", language="zh", checklist=listed
    )
    with opened(own) as (store, links):
        _, state = ask(store, f"{links['rater']}/consent", {})
        assert [one["text"] for one in state["checklist"]] == ["温暖。", "太长。"]
        item = state["item"]["id"]
        assert ask(store, f"{links['rater']}/vote", {"id": item, "rating": 6})[0] == 400
        ask(store, f"{links['rater']}/vote", {"id": item, "rating": 4, "checks": {"warm": True}})
        assert "rater: http://127.0.0.1:1/r/" in welcome(own, store, 1)
        shorter = dataclasses.replace(own, scale=(1, 3))
        assert "--schema=messages --scale 1 3 --out=labels" in welcome(shorter, store, 1)
        assert "--scale" not in welcome(dataclasses.replace(own, kind="choices"), store, 1)
    row = json.loads((own.out / VOTES).read_text())
    assert (row["rating"], row["checks"]) == (4.0, {"long": False, "warm": True})
    listed.write_text("- warm\n")
    with pytest.raises(InputError, match=r"checks\.yaml: no checklist"):
        read_checklist(listed)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 2020-01-01", "no checklist"),
        ("[1]", "no mapping"),
        ("a: {en: x, zh: [y]}", "'a': no name with a text of en and of zh"),
        ("1: {en: x, zh: y}", "1: no name"),
        ("a: &a {en: x, zh: y}\nb: *a", r"line 2: \*a is an alias"),
        ("", "no check in this file"),
    ],
)
def test_a_checklist_that_is_none_is_refused_in_a_line(tmp_path, text, line):
    listed = tmp_path / "checks.yaml"
    listed.write_text(text)
    with pytest.raises(InputError, match=rf"checks\.yaml: .*{line}") as caught:
        read_checklist(listed)
    assert "\n" not in str(caught.value)


def test_two_servers_and_other_items_are_refused(rating, tmp_path):
    with opened(rating), pytest.raises(InputError, match="another rating page has"), opened(rating):
        pass
    changed = lines(
        tmp_path / "pairs.jsonl", [{"id": "i", "prompt": "?", "chosen": "1", "rejected": "2"}]
    )
    with pytest.raises(InputError, match="a session with other items"), opened(rating):
        pass
    assert changed.exists()
    with pytest.raises(InputError, match="--raters ann ann: give one or more names, each once"):
        plan_of(RatingPage(changed, "preference", "choices", tmp_path, raters=("ann", "ann")))
    with pytest.raises(InputError, match="--scale 5 1"):
        plan_of(RatingPage(changed, "preference", "choices", tmp_path, scale=(5, 1)))


@contextmanager
def served(rating: RatingPage):
    with opened(rating) as (store, links), make_server(store, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield store, f"http://127.0.0.1:{server.server_port}", links
        finally:
            server.shutdown()
            thread.join()


def test_the_server_answers_a_browser(rating):
    with served(rating) as (store, site, links):
        with urllib.request.urlopen(site + links["ann"]) as found:
            assert found.headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert b"/static/rate.js" in found.read()
        with urllib.request.urlopen(f"{site}/h/{store.host}") as found:
            assert found.status == 200
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(f"{site}{links['ann']}/vote", data=b"x" * (LARGEST_BODY + 1))
        assert told.value.code == 413
        told.value.close()
        place = urllib.parse.urlsplit(site)
        for length in (b"\xb2", b"9" * 5000, b"-1"):  # the first is a superscript two
            with socket.create_connection((place.hostname, place.port), timeout=10) as raw:
                raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n" % length)
                assert raw.makefile("rb").readline().startswith(b"HTTP/1.1 413")


DRIVER = """<!doctype html><title>driver</title>
<iframe id=f width=900 height=900></iframe><pre id=out></pre><script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const frame = document.getElementById("f");
const page = () => frame.contentDocument;
const load = (url) => new Promise((done) => {
  frame.onload = () => setTimeout(done, 400); frame.src = url; });
const press = async (key) => {
  page().dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); await wait(300); };
const count = () => page().getElementById("count").textContent;
(async () => {
  const out = [];
  await load("LINK"); out.push(["consent", page().getElementById("agree").textContent]);
  page().getElementById("agree").click(); await wait(300); out.push(["begun", count()]);
  await press("a"); out.push(["one", count()]);
  page().getElementById("comment").value = "half a thought";
  page().getElementById("comment").dispatchEvent(new Event("input"));
  await load("LINK"); out.push(["reloaded", count(), page().getElementById("comment").value]);
  await press("u"); out.push(["undone", count()]);
  for (const key of ["b", "t", "n", "a", "a", "b"]) await press(key);
  out.push(["end", count(), page().getElementById("end").hidden]);
  out.push(["error", page().getElementById("error").textContent]);
  document.getElementById("out").textContent = JSON.stringify(out);
})();
</script>"""


@pytest.mark.slow  # starts a browser: some ten seconds
def test_the_page_in_a_browser(rating, monkeypatch, tmp_path):
    browser = shutil.which("chromium")
    assert browser, "install Chromium: apt-get install chromium"
    from hen_jax.measures.people import web

    with served(rating) as (store, site, links):
        page = web.Response(
            web.HTTPStatus.OK, DRIVER.replace("LINK", links["ann"]).encode(), "text/html"
        )
        routed = web.respond
        monkeypatch.setattr(web, "_HEADERS", {})
        monkeypatch.setattr(
            web, "answer", lambda s, m, p, b: page if p == "/driver" else routed(s, m, p, b)
        )
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'c'}"]
        ran = subprocess.run(
            [browser, *flags, "--virtual-time-budget=20000", "--dump-dom", f"{site}/driver"],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        told = ran.stdout.partition('<pre id="out">')[2].partition("</pre>")[0]
        assert json.loads(told.replace("&amp;", "&")) == [
            ["consent", "I agree, begin"],
            ["begun", "0 of 6"],
            ["one", "1 of 6"],
            ["reloaded", "1 of 6", "half a thought"],
            ["undone", "0 of 6"],
            ["end", "6 of 6", False],
            ["error", ""],
        ]
        assert len(store.votes) == 6


def test_half_a_character_in_a_comment_is_kept_as_a_question_mark(rating):
    with opened(rating) as (store, links):
        _, state = ask(store, f"{links['ann']}/consent", {})
        said = {"id": state["item"]["id"], "choice": "a", "comment": "odd \ud800 one"}
        assert ask(store, f"{links['ann']}/vote", said)[0] == 200
    row = json.loads((rating.out / VOTES).read_text(encoding="utf-8"))
    assert row["comment"] == "odd ? one"


def test_a_rating_too_large_for_a_number_is_refused(tmp_path):
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    items = lines(tmp_path / "said.jsonl", [{"id": "1", "messages": said}])
    with opened(RatingPage(items, "messages", "ratings", tmp_path / "out")) as (store, links):
        _, state = ask(store, f"{links['rater']}/consent", {})
        for rating in (int("9" * 400), -int("9" * 400), float("nan"), True):
            vote = {"id": state["item"]["id"], "rating": rating}
            code, found = ask(store, f"{links['rater']}/vote", vote)
            assert (code, found["error"][-15:]) == (400, "allowed: 1 to 5"), rating
        assert not store.votes


def test_any_vote_is_taken_or_refused_and_what_is_kept_is_read_again(rating):
    draw, codes = random.Random(0), set()
    with opened(rating) as (store, links):
        ask(store, f"{links['ann']}/consent", {})
        for _ in range(600):
            _, state = ask(store, f"{links['ann']}/state")
            shown = state["item"] or {"id": "i0"}
            sound = {"id": shown["id"], "choice": "a", "comment": "Warm.", "checks": {}}
            sent = fuzzed.spoilt_line(sound, draw)
            body = sent.encode("utf-8", "surrogatepass") if isinstance(sent, str) else sent
            found = respond(store, "POST", f"{links['ann']}/vote", body)
            codes.add(int(found.status))
            assert found.status in (200, 400), (sent, found)
            if found.status == 400:
                assert len(json.loads(found.body)["error"]) < 700
            elif draw.random() < 0.5:
                ask(store, f"{links['ann']}/undo", {})
        kept = list(store.votes)
    assert codes == {200, 400}
    with opened(rating) as (store, _):
        assert store.votes == kept


@pytest.mark.parametrize(
    "change",
    [{"plan": None}, {"host": None}, {"tokens": None}, {"host": []}, {"tokens": {"x": 1}},
     {"tokens": {"x": "ann"}}, {"tokens": ["ann"]}, {"consented": 1}, {"consented": [[]]}],
)  # fmt: skip
def test_a_session_of_another_shape_is_refused_in_a_line(rating, change):
    with opened(rating):
        pass
    path = rating.out / SESSION
    session = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: one for name, one in session.items() if one is not None}))
    (field,) = change
    said = rf"session\.json: {field}.*(it must be|is missing|is damaged)"
    with pytest.raises(InputError, match=said), opened(rating):
        pass


@pytest.mark.parametrize(
    "flags",
    [["--raters", "a\udcff"], ["--raters", "a\0"], ["--host", "é..x"], ["--host", "\udcff"],
     ["--host", "x" * 300], ["--host", ""], ["--host", " "]],
)  # fmt: skip
def test_names_that_nothing_can_have_are_refused_in_a_line(rating, flags, capsys):
    given = ["--items", str(rating.items), "--schema", "preference", "--kind", "choices"]
    assert cli.main(["rate", *given, "--out", str(rating.out), "--port", "0", *flags]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"hen: {flags[0]}")


@pytest.mark.parametrize("length", ["²", "٣", "-1", "1e3", ""])
def test_a_length_that_is_no_number_is_refused(rating, length):
    with served(rating) as (_, site, links):
        asked = http.client.HTTPConnection(site.removeprefix("http://"), timeout=10)
        with closing(asked):
            asked.putrequest("POST", f"{links['ann']}/consent")
            asked.putheader("Content-Length", length.encode("utf-8"))
            asked.endheaders()
            assert asked.getresponse().status == 413

"""`hen rate`: a page on this machine on which people rate replies, or choose between two."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.outputs import require_no_link
from hen_jax.core.ranges import Range, require_in
from hen_jax.core.yaml_text import read_yaml
from hen_jax.data.rated_items import read_items
from hen_jax.data.rating_sheets import conversation_item, pair_item
from hen_jax.data.votes import Kind
from hen_jax.empathy.labels import Language
from hen_jax.empathy.scales import PERCEIVED, Scale
from hen_jax.measures.people.session import Check, SessionPlan, lay_out_session
from hen_jax.measures.people.store import VOTES, VoteStore, open_votes
from hen_jax.measures.people.web import make_server

WIDEST = 10
"""Steps of a scale at most: each has a button, and a key."""


@dataclasses.dataclass(frozen=True)
class RatingPage:
    """One `hen rate`; fields carry the names of its flags."""

    items: Path
    schema: str
    kind: Kind
    out: Path
    raters: Sequence[str] = ("rater",)
    language: Language = "en"
    scale: tuple[int, int] = (1, 5)
    checklist: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    seed: int = 0


def rate(rating: RatingPage) -> None:
    """Serves the page until Ctrl-C; the votes are in `votes.jsonl` of `out` after each.

    Raises:
      InputError: bad items or settings, a folder of another session, or an address that is taken.
    """
    require_no_link(rating.out)
    require_in("--seed", rating.seed, Range(0))
    require_in("--port", rating.port, Range(0, 65535))
    if not rating.host.strip():  # to the system it is every address of this machine
        raise InputError("--host is empty; give a name or an address, such as 127.0.0.1")
    plan = plan_of(rating)
    with open_votes(rating.out, plan) as store:
        server = make_server(store, rating.host, rating.port)
        with server:
            print(welcome(rating, store, server.server_port), flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print(f"\n{len(store.votes)} votes in {rating.out / VOTES}")


def plan_of(rating: RatingPage) -> SessionPlan:
    """What is rated by whom.

    Raises:
      InputError: bad items, raters, scale or checklist.
    """
    low, high = rating.scale
    if not 0 <= low < high <= 9 or high - low >= WIDEST:
        raise InputError(f"--scale {low} {high}: give two whole numbers from 0 to 9, lower first")
    found = read_items(rating.items, rating.schema, rating.kind)
    shown = [pair_item(pair) for pair in found.pairs.values()]
    shown += [conversation_item(name, said) for name, (_, said) in found.said.items()]
    return lay_out_session(
        rating.kind,
        shown,
        rating.raters,
        seed=rating.seed,
        language=rating.language,
        scale=PERCEIVED if (low, high) == (1, 5) else Scale("rating", low, high),
        checklist=() if rating.checklist is None else read_checklist(rating.checklist),
    )


def read_checklist(path: Path) -> list[Check]:
    """A YAML file `name: {en: ..., zh: ...}`, a line for each check.

    Raises:
      InputError: another kind of file.
    """
    given = read_yaml(path)
    if given is not None and not isinstance(given, dict):
        raise _no_checklist(path, "no mapping")
    found = []
    for name, of in (given or {}).items():
        match of:
            case {"en": str(en), "zh": str(zh)} if isinstance(name, str):
                found.append(Check(name, en, zh))
            case _:
                raise _no_checklist(path, f"{name!r:.80}: no name with a text of en and of zh")
    if not found:
        raise InputError(f"{path}: no check in this file")
    return found


def _no_checklist(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: no checklist ({why}); give lines such as "
        "`warm: {en: It is warm., zh: 语气温暖。}`"
    )


def welcome(rating: RatingPage, store: VoteStore, port: int) -> str:
    """The lines that say where to go."""
    site = f"http://{rating.host}:{port}"
    done = {rater: sum(vote.rater == rater for vote in store.votes) for rater in store.plan.sheets}
    low, high = rating.scale
    scale = f" --scale {low} {high}" if rating.kind == "ratings" else ""
    lines = [
        f"{len(store.plan.items)} items; votes go to {rating.out / VOTES}; Ctrl-C ends",
        f"host: {site}/h/{store.host} (progress and agreement)",
        *(f"{x}: {site}/r/{token} ({done[x]} rated)" for token, x in store.tokens.items()),
        f"then: hen data ratings {rating.out / VOTES} --kind={rating.kind} --items={rating.items} "
        f"--schema={rating.schema}{scale} --out=labels",
    ]
    if rating.host not in ("127.0.0.1", "localhost", "::1"):
        lines.append(f"warning: {rating.host} is reached from other machines, without encryption")
    return "\n".join(lines)

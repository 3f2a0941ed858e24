"""Where a rating session is kept: one folder, on this machine alone.

`votes.jsonl` holds the votes and is written whole after each, so that a kill or a reload loses
nothing; `session.json` the links and who has consented. One server at a time has the folder.
"""

import fcntl
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, staged_file, write_json
from hen_jax.core.shapes import checked_shape
from hen_jax.data.rows import read_lines
from hen_jax.measures.people.session import ItemRating, SessionPlan, read_vote, vote_row

VOTES, SESSION, LOCK = "votes.jsonl", "session.json", ".rating.lock"
_KIND = "rating session of hen_jax"


class VoteStore:
    """The votes of a session, in memory and on the disk; safe for several threads."""

    def __init__(self, folder: Path, plan: SessionPlan, host: str, tokens: Mapping[str, str]):
        self.folder, self.plan, self.host = folder, plan, host
        self.tokens = tokens  # of the link -> rater
        self._lock = threading.Lock()
        self._votes = _read_votes(folder / VOTES, plan)
        self._consented = _consented(folder)

    @property
    def votes(self) -> list[ItemRating]:
        """All votes so far."""
        with self._lock:
            return list(self._votes)

    def consented(self, rater: str) -> bool:
        """Whether the rater has agreed to take part."""
        with self._lock:
            return rater in self._consented

    def change(self, work: Callable[[list[ItemRating]], Sequence[ItemRating]]) -> list[ItemRating]:
        """Replaces the votes by what `work` makes of them, on the disk before in memory.

        Raises:
          InputError: as `work` does; nothing changes then.
        """
        with self._lock:
            votes = list(work(list(self._votes)))
            with staged_file(self.folder / VOTES) as staged:
                lines = (json.dumps(vote_row(x, self.plan.kind), ensure_ascii=False) for x in votes)
                staged.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            self._votes = votes
            return list(votes)

    def consent(self, rater: str, *, given: bool) -> None:
        """Writes down that a rater agreed, or no longer does."""
        with self._lock:
            ours = set(self._consented) | {rater} if given else set(self._consented) - {rater}
            session = read_json(self.folder / SESSION)
            write_json(self.folder / SESSION, session | {"consented": sorted(ours)})
            self._consented = ours


@contextmanager
def open_votes(folder: Path, plan: SessionPlan) -> Iterator[VoteStore]:
    """The store in `folder`, made if there is none; the links stay the same from start to start.

    Raises:
      InputError: a folder with another session, or one that another server has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another rating page has {folder}; end it, or give another") from None
        session = _session(folder, plan)
        yield VoteStore(folder, plan, session["host"], session["tokens"])


_SESSION = {"plan": str, "host": str, "tokens": {...: str}, "consented?": [str]}


def _session(folder: Path, plan: SessionPlan) -> dict[str, Any]:
    path, named = folder / SESSION, _name(plan)
    if not path.exists():
        if (folder / VOTES).exists():
            raise InputError(f"{folder / VOTES} has no {SESSION} beside it; give another folder")
        tokens = {secrets.token_urlsafe(9): rater for rater in plan.sheets}
        session = {"kind": _KIND, "plan": named, "host": secrets.token_urlsafe(9), "tokens": tokens}
        write_json(path, session | {"consented": []})
        return session
    session = read_json(path)
    if not isinstance(session, dict) or session.get("kind") != _KIND:
        raise InputError(f"{path} is no {_KIND}; give another folder")
    remedy = "put a copy in its place, or give another folder"
    checked_shape(session, _SESSION, path, remedy)
    if session["plan"] != named:
        raise InputError(
            f"{folder} holds a session with other items, raters or settings; give another folder, "
            "or the same command"
        )
    if {*session["tokens"].values()} != plan.sheets.keys():
        raise InputError(f"{path}: tokens is damaged; {remedy}")
    return session


def _name(plan: SessionPlan) -> str:
    """Tells one plan from another: what is shown to whom, in which order."""
    sheets = {
        rater: [[row.blind, row.item.id, row.item.prompt, *row.item.replies] for row in rows]
        for rater, rows in plan.sheets.items()
    }
    checks = [vars(one) for one in plan.checklist]
    return text_sha256(json.dumps([plan.kind, plan.scale.low, plan.scale.high, checks, sheets]))


def _read_votes(path: Path, plan: SessionPlan) -> list[ItemRating]:
    if not path.exists():
        return []
    found = []
    for line, row, _, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            vote = read_vote(row, plan.kind)
            if vote.rater not in plan.sheets or vote.item not in plan.items:
                raise InputError(f"{vote.rater!r} on {vote.item!r} is not of this session")
        except InputError as error:
            raise InputError(f"{path}:{line}:{error}; mend or remove the line") from None
        found.append(vote)
    return found


def _consented(folder: Path) -> set[str]:
    return set(read_json(folder / SESSION).get("consented", []))

"""What suites ask of arms, judges and reward models, each answer kept and asked for only once."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.checksums import text_sha256
from hen_jax.core.journal import Journal
from hen_jax.evaluation.judge_asking import JudgeCall, JudgeIdentity, ask_all, begun_reply, call_key
from hen_jax.evaluation.judge_prompts import BEGINNINGS, nonce_policy, with_nonce
from hen_jax.evaluation.suite import Item, Judge, LogProbs, RewardScorer, Turns
from hen_jax.runs.arms import Arm, arm_likelihood, arm_revision, arm_speaker
from hen_jax.runs.chats import Speaker, back_end, open_speaker, revision
from hen_jax.runs.likelihood import Likelihood
from hen_jax.text.conversation import Conversation, Message, Reply, message_row
from hen_jax.verbs.evaluate.settings import Evaluating

CALLS, VALUES = "journal of evaluation replies", "journal of evaluation values"
_LOG_PROBS = 128
"""Prompts whose log-probabilities are computed, and kept, together."""


class KeptReplies(NamedTuple):
    """What was answered so far, on the disk and here."""

    calls: Journal
    values: Journal
    replies: dict[str, Reply]
    known: dict[str, Any]


def open_kept(calls: Journal, values: Journal) -> KeptReplies:
    """What the journals held when they were opened."""
    replies = {row["key"]: Reply(**{f: row[f] for f in Reply._fields}) for row in calls.rows}
    return KeptReplies(calls, values, replies, {row["key"]: row["value"] for row in values.rows})


class Asking:
    """One arm at a time, opened when it is first asked: its weights go with the next one's."""

    def __init__(
        self, evaluating: Evaluating, arms: Sequence[Arm], items: Sequence[Item], kept: KeptReplies
    ):
        """Nothing is opened yet."""
        self.evaluating, self.items, self.kept = evaluating, items, kept
        self.arms = {arm.name: arm for arm in arms}
        self.revisions = {arm.name: arm_revision(arm, items) for arm in arms}
        self._open: tuple[str, Any] = ("", None)
        self.judge, self.reward = self._judge(), self._reward()

    def replies(self, name: str, items: Sequence[Item]) -> list[Reply]:
        """Of the arm of that name; `InputError` where it does not answer, what came is kept."""
        arm, identity = self.arms[name], self.identity(name)
        prompts = [item.prompt for item in items]
        return self._ask(
            [_asked(identity, prompt) for prompt in prompts],
            lambda seed: self._speaker(arm)(seed),
            arm.kind == "model",
            name,
        )

    def known_replies(self, name: str, items: Sequence[Item]) -> dict[str, Reply]:
        """By item: what the arm has answered so far; nobody is asked."""
        identity = self.identity(name)
        asks = {item.id: _asked(identity, item.prompt).key for item in items}
        return {
            one: self.kept.replies[key] for one, key in asks.items() if key in self.kept.replies
        }

    def identity(self, name: str) -> JudgeIdentity:
        """All that the replies of an arm depend on besides the prompt."""
        names = ("max_new_tokens", "temperature", "top_p", "seed", "dtype")
        decoding = {one: vars(self.evaluating)[one] for one in names}
        return JudgeIdentity(self.arms[name].line, self.revisions[name], decoding, "")

    def log_probs(
        self, name: str, asked: Sequence[tuple[Turns, tuple[str, ...]]]
    ) -> list[LogProbs]:
        """Of replies under the arm of that name."""
        arm, revised = self.arms[name], self.revisions[name]
        of = [arm.line, revised, self.evaluating.dtype, str(self.evaluating.tokenizer or "")]
        keys = [_key(["log_probs", of, _rows(prompt), texts]) for prompt, texts in asked]
        missing = {key: one for key, one in zip(keys, asked, strict=True)
                   if key not in self.kept.known}  # fmt: skip
        ordered = sorted(missing.items(), key=lambda one: _length(one[1]))
        likelihood = self._likelihood(arm) if ordered else None
        for start in range(0, len(ordered), _LOG_PROBS):
            part = ordered[start : start + _LOG_PROBS]
            _tell(name, "prompts scored", start, len(ordered))
            assert likelihood is not None
            found = likelihood([one for _, one in part])
            self._keep({key: [one.sums.tolist(), one.tokens.tolist()]
                        for (key, _), one in zip(part, found, strict=True)})  # fmt: skip
        return [LogProbs(*map(np.asarray, self.kept.known[key])) for key in keys]

    def once(self, name: str) -> Callable[[str, Callable[[], Any]], Any]:
        """`Context.once` of the arm of that name."""

        def once(what: str, work: Callable[[], Any]) -> Any:
            key = _key(["once", self.identity(name), what])
            if key not in self.kept.known:
                self._keep({key: work()})
            return self.kept.known[key]

        return once

    def _judge(self) -> Judge | None:
        """The judge of the command line; it answers greedily, whatever the arms do."""
        given = self.evaluating
        if given.judge is None:
            return None
        line, begin = given.judge, BEGINNINGS["pointwise"] if given.judge_begin else ""
        names = ("max_new_tokens", "seed", "dtype")
        decoding = {"begin": begin} | {one: vars(given)[one] for one in names}
        revised = revision(line, given.judge_adapter)
        identity = JudgeIdentity(line, revised, decoding, nonce_policy(given.nonce_seed))
        said = (Message("assistant", begin),) if begin else ()

        def conversation(text: str) -> Callable[[], Sequence[Message]]:
            return lambda: (*with_nonce(text, given.nonce_seed, text), *said)

        def ask(questions: Sequence[str]) -> list[Reply]:
            asks = [JudgeCall(call_key(identity, text, 0, 0), len(text), conversation(text))
                    for text in questions]  # fmt: skip
            found = self._ask(asks, self._judge_speaker, back_end(line).kind == "model", "judge")
            return [begun_reply(begin, reply) for reply in found] if begin else found

        adapter = "" if given.judge_adapter is None else f" + {given.judge_adapter}"
        return Judge(f"{line}{adapter} ({revised})", ask)

    def _reward(self) -> RewardScorer | None:
        """The reward model of the command line."""
        if self.evaluating.reward is None:
            return None
        from hen_jax.verbs.evaluate.reward_scores import named_reward

        dtype = self.evaluating.dtype
        name, opening = named_reward(self.evaluating.reward, dtype)

        def score(conversations: Sequence[Conversation]) -> np.ndarray:
            keys = [_key(["reward", name, dtype, _rows(one.messages)]) for one in conversations]
            missing = {key: one for key, one in zip(keys, conversations, strict=True)
                       if key not in self.kept.known}  # fmt: skip
            if missing:
                found = self._opened("reward", opening)(list(missing.values()))
                self._keep(dict(zip(missing, map(_number, found.tolist()), strict=True)))
            known = [self.kept.known[key] for key in keys]
            return np.asarray([np.nan if one is None else one for one in known])

        return RewardScorer(name, score)

    def _ask(
        self, asks: Sequence[JudgeCall], speaker: Speaker, ours: bool, name: str
    ) -> list[Reply]:
        given, replies = self.evaluating, self.kept.replies
        missing = [ask for ask in asks if ask.key not in replies]
        if missing:
            chunk = given.batch_size if ours else 4 * given.at_once
            journal = self.kept.calls._replace(rows=[])
            replies |= ask_all(
                missing, speaker, journal, chunk=chunk, seed=given.seed,
                told=lambda done, total: _tell(name, "replies", done, total),
            )  # fmt: skip
        return [replies[ask.key] for ask in asks]

    def _speaker(self, arm: Arm) -> Speaker:
        given = self.evaluating.answering(arm.adapter)
        return self._opened(f"replies {arm.name}", lambda: arm_speaker(arm, given, self.items))

    def _judge_speaker(self, seed: int) -> Any:
        line, adapter = self.evaluating.judge or "", self.evaluating.judge_adapter
        given = dataclasses.replace(self.evaluating.answering(adapter), temperature=0.0, top_p=1.0)
        return self._opened("judge", lambda: open_speaker(line, given))(seed)

    def _likelihood(self, arm: Arm) -> Likelihood:
        given = self.evaluating.answering(arm.adapter)
        return self._opened(
            f"likelihood {arm.name}",
            lambda: arm_likelihood(arm, given, self.evaluating.tokenizer),
        )

    def _opened(self, what: str, opening: Callable[[], Any]) -> Any:
        """One thing is open at a time: what was before is let go first."""
        if self._open[0] != what:
            self._let_go()
            self._open = (what, opening())
        return self._open[1]

    def _let_go(self) -> None:
        self._open = ("", None)

    def _keep(self, found: Mapping[str, Any]) -> None:
        self.kept.values.append({"key": key, "value": value} for key, value in found.items())
        self.kept.known.update(found)


def _asked(identity: JudgeIdentity, prompt: Turns) -> JudgeCall:
    text = json.dumps(_rows(prompt), sort_keys=True)
    return JudgeCall(call_key(identity, text, 0, 0), len(text), lambda: prompt)


def _rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message_row(message) for message in messages]


def _key(parts: Sequence[Any]) -> str:
    return text_sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False))


def _length(one: tuple[Turns, tuple[str, ...]]) -> int:
    return sum(len(message.content) for message in one[0]) + max(map(len, one[1]))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _tell(name: str, what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{name}: {done} of {total} {what}", end="", file=sys.stderr, flush=True)

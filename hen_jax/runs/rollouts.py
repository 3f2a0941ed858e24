"""Rollouts: between the prompts of a batch and the step, replies are drawn and judged.

The replies of a rollout depend on the seed, its number and the parameters alone, so that a run
that was cut off draws them again. The adapter that trains is used as it is, unmerged, beside its
base: what a sampled token's log-probability was is what the update computes again.
"""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.ranges import Count, Natural, NotNegative, Positive, check_ranges
from hen_jax.core.types import Tree
from hen_jax.data.rollouts import JudgedGroup, Rollout, RolloutBounds, Sampled, rollout_batch
from hen_jax.evaluation.rewards import Answered, Earned, Term, mixed
from hen_jax.runs.prompts import AskedPrompts, Prompt
from hen_jax.runs.speech import Speak, Spoken, Voice
from hen_jax.steps.policy_config import BEHAVIOUR, base_of, decoder_of
from hen_jax.steps.state import State
from hen_jax.text.chat import render_bridge
from hen_jax.text.conversation import Chat, Message
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import Prepare
from hen_jax.training.processes import is_primary


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How replies are drawn, and when one is late.

    Nothing but the temperature shapes the distribution: under top-k or top-p a token's
    log-probability depends on what was cut off, and the ratio of policies would be wrong.
    """

    replies: Count = 8  # G, to each prompt
    max_new_tokens: Count = 128  # of one turn of the policy
    temperature: Positive = 1.0  # all log-probabilities of the stage belong to it
    turns: Count = 1  # of the policy; a simulated user speaks between them
    user_tokens: Count = 64  # of a user's turn with its headers; a longer one ends the conversation
    slots: Count = 32  # replies drawn at a time; more wait for one that is done
    shared_prompts: bool = True  # the prompt once a group in the update; False: before each reply
    ahead: Literal[0, 1] = 0  # 1: drawn while the update before is computed, with older parameters
    sampler: str | None = None  # endpoint:URL#MODEL draws in the policy's place; None: itself
    on_failure: Literal["leave_out", "stop"] = "leave_out"  # of a reward, for the replies concerned
    reward_seconds: NotNegative = 60.0  # that a plain reward may take for one reply; 0: any
    show_every: Natural = 10  # rollouts between two that are written to `rollouts/`; 0: none

    def __post_init__(self):
        check_ranges(self)

    @property
    def longest(self) -> int:
        """Tokens after a prompt at most."""
        return self.turns * self.max_new_tokens + (self.turns - 1) * self.user_tokens


class _Talk(NamedTuple):
    """A conversation as far as it went: what followed the prompt, in tokens and in words."""

    sampled: Sampled
    turns: tuple[Message, ...]


class Room(NamedTuple):
    """What a rollout is made with."""

    config: RolloutConfig
    sizes: RolloutBounds
    speak: Speak  # who draws what is trained on
    own: Speak  # the policy itself, for evaluations
    decode: Callable[[list[int]], str]
    tokenizer: ChatTokenizer
    terms: tuple[Term, ...]
    user: Chat | None  # who speaks between the turns of the policy
    valued: bool
    seed: int


def preparing(room: Room, put: Callable[[Rollout], Rollout], folder: Path) -> Prepare:
    """`prepare(state, frozen, asked)`: the rollout of these prompts, judged, on the devices.

    Raises:
      InputError: a reward failed and `config.on_failure` is "stop".
    """
    made = _Ahead() if room.config.ahead else None

    def whole(params: Tree, frozen: Tree, asked: AskedPrompts) -> Rollout:
        return roll_out(room, params, frozen, asked, folder)

    def prepare(state: State, frozen: Tree, asked: AskedPrompts) -> Rollout:
        params = decoder_of(state.params)
        if made is None or asked.evaluating:
            return put(whole(params, frozen, asked))
        if asked.number:
            params = state.memory[BEHAVIOUR]
        rollout = made.take(asked.number) or whole(params, frozen, asked)
        if asked.following is not None:
            copy = jax.tree.map(jnp.copy, decoder_of(state.params))  # the step takes the state's
            later = AskedPrompts(asked.number + 1, asked.following)
            made.begin(later.number, lambda: whole(copy, frozen, later))
        return put(rollout)

    return prepare


class _Ahead:
    """A rollout that is made in a thread, one ahead of the update; a foreign resource."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._next: tuple[int, Future[Rollout]] | None = None

    def begin(self, number: int, make: Callable[[], Rollout]) -> None:
        self._next = number, self._pool.submit(make)

    def take(self, number: int) -> Rollout | None:
        """The rollout of that number, if it is the one that was begun."""
        begun, self._next = self._next, None
        return begun[1].result() if begun is not None and begun[0] == number else None


def roll_out(room: Room, params: Tree, frozen: Tree, asked: AskedPrompts, folder: Path) -> Rollout:
    """The judged groups of all prompts, as numpy rows."""
    groups = [one for one in asked.prompts if one is not None]
    speak = room.own if asked.evaluating else room.speak
    voice = speak(params, base_of(frozen))
    talks = converse(room, voice, groups, (room.seed, int(asked.evaluating), asked.number))
    earned = _judge(room, groups, talks, asked.evaluating)
    judged = iter(_judged(groups, talks, earned, room.config.replies))
    _show(room, asked, groups, talks, earned, folder)
    rows = [None if one is None else next(judged) for one in asked.prompts]
    return rollout_batch(rows, room.sizes, len(room.terms), room.valued)


def converse(
    room: Room, voice: Voice, groups: Sequence[Prompt], seed: tuple[int, ...]
) -> list[_Talk]:
    """`G` conversations for each prompt, group by group.

    A conversation ends where the policy's turn was cut off, where a user says more than
    `config.user_tokens`, and after `config.turns` turns.
    """
    config, G = room.config, room.config.replies
    prompts = [one.tokens for one in groups for _ in range(G)]
    spoken = voice(prompts, _seeds(seed, 0, range(len(prompts))))
    talks = [_said(_Talk(_SILENCE, ()), one, room.decode) for one in spoken]
    for turn in range(1, config.turns):
        going = [at for at, talk in enumerate(talks) if not talk.sampled.truncated]
        going = _user_speaks(room, groups, talks, going)
        whole = [np.concatenate([prompts[at], talks[at].sampled.tokens]) for at in going]
        spoken = voice(whole, _seeds(seed, turn, going)) if going else []
        for at, one in zip(going, spoken, strict=True):
            talks[at] = _said(talks[at], one, room.decode)
    return talks


def _seeds(seed: tuple[int, ...], turn: int, places: Sequence[int]) -> list[int]:
    """One for each reply, made of what names it."""
    names = ((*seed, turn, place) for place in places)
    return [int(np.random.SeedSequence(name).generate_state(1)[0]) for name in names]


_SILENCE = Sampled(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.float32))


def _said(talk: _Talk, spoken: Spoken, decode: Callable[[list[int]], str]) -> _Talk:
    """The conversation with one more turn of the policy."""
    text = decode(spoken.tokens[: len(spoken.tokens) - spoken.stopped].tolist())
    before = talk.sampled
    sampled = Sampled(
        np.concatenate([before.tokens, spoken.tokens]),
        np.concatenate([before.drawn, np.ones(len(spoken.tokens), bool)]),
        np.concatenate([before.log_probs, spoken.log_probs]),
        truncated=not spoken.stopped,
    )
    return _Talk(sampled, (*talk.turns, Message("assistant", text)))


def _user_speaks(
    room: Room, groups: Sequence[Prompt], talks: list[_Talk], going: list[int]
) -> list[int]:
    """Adds the user's turn to the conversations `going`; those that go on."""
    assert room.user is not None
    G = room.config.replies
    so_far = [groups[at // G].messages + talks[at].turns for at in going]
    answers = room.user(so_far) if going else []
    left = []
    for at, messages, answer in zip(going, so_far, answers, strict=True):
        said = Message("user", answer.text)
        ids = render_bridge((*messages, said), room.tokenizer)
        if len(ids) > room.config.user_tokens:
            continue
        before, n = talks[at].sampled, len(ids)
        sampled = Sampled(
            np.concatenate([before.tokens, ids]),
            np.concatenate([before.drawn, np.zeros(n, bool)]),
            np.concatenate([before.log_probs, np.zeros(n, np.float32)]),
        )
        talks[at] = _Talk(sampled, (*talks[at].turns, said))
        left.append(at)
    return left


def _judge(
    room: Room, groups: Sequence[Prompt], talks: Sequence[_Talk], evaluating: bool
) -> Earned:
    """What every conversation earned; failures are told, or end the run, as is set.

    Raises:
      InputError: a reward failed and `config.on_failure` is "stop".
    """
    G = room.config.replies
    answered = [
        Answered(
            groups[at // G].messages,
            talk.turns[-1].content,
            groups[at // G].record,
            at // G,
            talk.turns,
        )
        for at, talk in enumerate(talks)
    ]
    earned = mixed(room.terms, answered, evaluating)
    if earned.problems and room.config.on_failure == "stop":
        raise InputError(
            f"{'; '.join(earned.problems)}. config.rollout.on_failure is 'stop': the run goes on "
            "from its last checkpoint once that is mended"
        )
    for problem in earned.problems:
        print(f"{problem}; left out of this rollout")
    return earned


def _judged(
    groups: Sequence[Prompt], talks: Sequence[_Talk], earned: Earned, G: int
) -> list[JudgedGroup]:
    return [
        JudgedGroup(
            one.tokens,
            tuple(talk.sampled for talk in talks[at * G : (at + 1) * G]),
            earned.rewards[at * G : (at + 1) * G],
            earned.parts[at * G : (at + 1) * G],
            earned.valid[at * G : (at + 1) * G],
        )
        for at, one in enumerate(groups)
    ]


def _show(
    room: Room,
    asked: AskedPrompts,
    groups: Sequence[Prompt],
    talks: Sequence[_Talk],
    earned: Earned,
    folder: Path,
) -> None:
    """Writes the first groups of a rollout now and then, for people: `rollouts/NUMBER.json`."""
    every, G = room.config.show_every, room.config.replies
    if asked.evaluating or not every or asked.number % every or not is_primary():
        return
    names = [term.name for term in room.terms]
    shown = [
        {
            "prompt": [f"{message.role}: {message.content}" for message in one.messages],
            "replies": [_told(talks[at], earned, at, names) for at in range(row * G, row * G + G)],
        }
        for row, one in enumerate(groups[:2])
    ]
    path = folder / "rollouts" / f"{asked.number}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, shown)


def _told(talk: _Talk, earned: Earned, at: int, names: Sequence[str]) -> dict[str, Any]:
    parts = {
        name: round(float(value), 4)
        for name, value in zip(names, earned.parts[at], strict=True)
        if np.isfinite(value)
    }
    said = [f"{message.role}: {message.content}" for message in talk.turns]
    return {"said": said, "cut_off": talk.sampled.truncated, "rewards": parts}

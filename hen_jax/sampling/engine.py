"""The engine: requests in, tokens out, as many rows at a time as there are slots.

```
engine = Engine(weights, Slots(rows=8, places=512))
engine.run([Request((1, 2, 3), 64, stop=(2,)), Request((4,))])
```
"""

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.sampling import drafting
from hen_jax.sampling import slots as at_rest
from hen_jax.sampling.drawing import Chunk, step_drawing
from hen_jax.sampling.places import Entry, Resident, padded_count, pieces, plan_admission
from hen_jax.sampling.reading import copy_rows, prefill
from hen_jax.sampling.replies import (
    Writing,
    completion,
    cut_at_stop_string,
    extended,
    finish_of,
    joined,
    top_of,
)
from hen_jax.sampling.request_rows import prompt_marks, rows_from
from hen_jax.sampling.requests import Completion, Event, Request
from hen_jax.sampling.slots import DecodeState, Slots
from hen_jax.sampling.weights import Weights

_init = jax.jit(at_rest.init_slots, static_argnames="slots")
_admit = jax.jit(at_rest.admit, donate_argnums=0)
_release = jax.jit(at_rest.release, donate_argnums=0)
_prefill = jax.jit(prefill, static_argnames="resumed", donate_argnums=1)
_copy = jax.jit(copy_rows, donate_argnums=0)
_step = jax.jit(step_drawing, static_argnames=("slots", "reads"), donate_argnums=1)
_guess = jax.jit(drafting.step_drafting, static_argnames=("slots", "reads"), donate_argnums=1)


class Engine:
    """The state of the slots on the devices, and on the host who is in which, and who waits.

    Args:
      key: names the weights by their contents, adapter included: with another key nothing that the
        cache holds is used again. None: whenever weights are given.
      decode: ids -> text, of the tokenizer; for requests with stop strings.
    """

    def __init__(
        self,
        weights: Weights,
        slots: Slots = Slots(),
        key: str | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
    ):
        self.weights, self.slots, self.key, self.decode = weights, slots, key, decode
        self.state = _init_state(weights, slots)
        self.platform = next(iter(self.state.cache.lengths.devices())).platform
        self.writing: dict[int, Writing] = {}  # by slot
        self.residents: list[Resident] = [Resident()] * slots.rows
        self.waiting: deque[tuple[int, Request]] = deque()
        self.ids = itertools.count()
        self.worth = drafting.UNKNOWN

    def use(self, weights: Weights, key: str | None = None) -> None:
        """Other weights of the same shapes, as after an update; nothing is compiled anew.

        Raises:
          InputError: replies are being written.
        """
        if self.writing:
            raise InputError("weights were exchanged while replies are written; finish them first")
        if key is None or key != self.key:
            self.residents = [Resident()] * self.slots.rows
        self.weights, self.key = weights, key

    def exchange_adapters(self, weights: Weights) -> None:
        """The same base with other adapters in columns that no reply under way uses.

        Nothing is forgotten: what the cache holds is named by its adapters' contents.
        """
        self.weights = weights

    def submit(self, request: Request) -> int:
        """Puts a request at the end of the queue, and returns its id.

        Raises:
          InputError: it does not fit, or has stop strings and there is no `decode`.
        """
        require_fit(request, self.slots, self.weights.model.config.vocab_size)
        if request.stop_strings and self.decode is None:
            raise InputError("stop strings need the tokenizer's decode; give it to the engine")
        number = next(self.ids)
        self.waiting.append((number, request))
        return number

    def cancel(self, number: int) -> Completion | None:
        """Ends a request and frees its slot; what it has written so far, None if it is not here."""
        for place, (waiting, request) in enumerate(self.waiting):
            if waiting == number:
                del self.waiting[place]
                return completion(Writing(number, request, 0), "cancelled")
        for slot, writing in self.writing.items():
            if writing.id == number:
                self._release([slot])
                return completion(self.writing.pop(slot), "cancelled")
        return None

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self.writing or self.waiting)

    def step(self) -> list[Event]:
        """Fills free slots from the queue, draws a chunk of tokens, and tells what came of it.

        Where it is interrupted, as by Ctrl-C, the replies under way are given up: what the programs
        were given is gone, and what was to be read was not. What waits is answered by later calls.
        """
        try:
            self._fill()
            return self._read(self._draw()) if self.writing else []
        except BaseException:
            self._begin_anew()
            raise

    def _begin_anew(self) -> None:
        """Empty slots."""
        del self.state  # its memory, before there is another
        self.writing, self.residents = {}, [Resident()] * self.slots.rows
        self.state = _init_state(self.weights, self.slots)

    def _draw(self) -> Chunk:
        """A chunk, with guesses where they pay, on the host."""
        # A slot that comes free is filled at once where somebody waits for it.
        ended, guessing = 1 if self.waiting else self.slots.rows, False
        if self.slots.draft:
            guessing = drafting.pays(self.worth)
        how = {"slots": self._slots_now(), "ended": ended, "reads": self._reads()}
        start = time.perf_counter()
        if guessing:
            history = self._history()
            self.state, chunk, steps = _guess(self.weights, self.state, history, **how)
        else:
            self.state, chunk = _step(self.weights, self.state, **how)
            steps = None
        chunk, steps = jax.device_get((chunk, steps))
        steps = max(1, int(chunk.counts.max() if steps is None else steps))
        seconds = (time.perf_counter() - start) / steps
        gained = float(chunk.counts.sum()) / (steps * max(1, len(self.writing)))
        self.worth = drafting.noted(self.worth, guessing, drafting.DraftPace(seconds, gained))
        return chunk

    def _reads(self) -> int | None:
        """How many places of the cache a step looks at; None: all.

        XLA CPU: as few of `slots.reads` as hold what the rows have; they are copied once a chunk.
        On other devices that copy might be what the memory was planned without.
        """
        if self.platform != "cpu":
            return None
        longest = max(len(one.request.prompt) + len(one.tokens) for one in self.writing.values())
        return next(size for size in self.slots.reads if size >= longest)

    def _slots_now(self) -> Slots:
        """The slots, which list no probable tokens while nobody asks for them."""
        asked = any(writing.request.tops for writing in self.writing.values())
        return self.slots if asked else dataclasses.replace(self.slots, top=0)

    def _history(self) -> drafting.History:
        texts: list[list[Sequence[int]]] = [[] for _ in range(self.slots.rows)]
        for slot, writing in self.writing.items():
            own = [*writing.request.prompt, *writing.tokens.tolist()]
            texts[slot] = [*writing.request.hints, own]
        return drafting.history_of(texts, self.slots.history)

    def run(self, requests: Iterable[Request]) -> list[Completion]:
        """Answers all requests; completions in their order."""
        numbers = [self.submit(request) for request in requests]
        found: dict[int, Completion] = {}
        while not all(number in found for number in numbers):
            done = [event.completion for event in self.step() if event.completion is not None]
            found |= {one.id: one for one in done}
        return [found[number] for number in numbers]

    def _fill(self) -> None:
        free = [slot for slot in range(self.slots.rows) if slot not in self.writing]
        count = min(len(free), len(self.waiting))
        if not count:
            return
        asked = [self.waiting.popleft() for _ in range(count)]
        config = self.weights.model.config
        plan = plan_admission([request for _, request in asked], self.residents, free, config)
        self.residents = plan.residents
        for wave in plan.waves:
            self._copy(wave)
            for piece, resumed in pieces(wave, self.slots):
                self.state = _prefill(self.weights, self.state, piece, resumed=resumed)
            self._admit(wave, [asked[entry.number] for entry in wave])

    def _copy(self, wave: Sequence[Entry]) -> None:
        """Gives entries the beginnings that other slots hold."""
        pairs = [(one.source, one.slot) for one in wave if one.source not in (None, one.slot)]
        if pairs:
            rows = padded_count(len(pairs), self.slots.rows)
            source, target = np.full((2, rows), self.slots.rows, np.int32)
            source[: len(pairs)], target[: len(pairs)] = zip(*pairs, strict=True)
            source = np.minimum(source, self.slots.rows - 1)  # what nobody's target gets
            self.state = _copy(self.state, source, target)

    def _admit(self, wave: Sequence[Entry], asked: Sequence[tuple[int, Request]]) -> None:
        count, slots = padded_count(len(wave), self.slots.rows), self.slots
        slot, lengths = np.full(count, slots.rows, np.int32), np.zeros(count, np.int32)
        slot[: len(wave)] = [one.slot for one in wave]
        lengths[: len(wave)] = [len(one.prompt) for one in wave]
        requests = [request for _, request in asked]
        rows = rows_from([*requests, *[requests[0]] * (count - len(wave))], slots)
        marks = prompt_marks(requests, count, self.weights.model.config.vocab_size)
        self.state = _admit(self.state, slot, rows, lengths, marks)
        for entry, (number, request) in zip(wave, asked, strict=True):
            self.writing[entry.slot] = Writing(number, request, entry.shared)

    def _read(self, chunk: Chunk) -> list[Event]:
        events, cut_short = [], []
        for slot, before in list(self.writing.items()):
            after = extended(before, chunk, slot)
            if after.request.stop_strings and self.decode is not None:
                after = cut_at_stop_string(after, self.decode, len(before.tokens))
            finish = finish_of(after)
            done = None if finish is None else completion(after, finish)
            events.append(_event(before, after, done))
            self._remember(slot, after)
            if finish is None:
                self.writing[slot] = after
            else:
                del self.writing[slot]
                cut_short += [slot] if after.stop_string is not None else []
        self._release(cut_short)
        return events

    def _remember(self, slot: int, writing: Writing) -> None:
        """Notes what the cache holds of a slot: its last token was drawn, but not read."""
        tokens = np.append(np.asarray(writing.request.prompt, np.int32), writing.tokens[:-1])
        self.residents[slot] = self.residents[slot]._replace(tokens=tokens)

    def _release(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self.state = _release(self.state, np.asarray([slot], np.int32))


def _init_state(weights: Weights, slots: Slots) -> DecodeState:
    """Empty slots on the devices that the weights are on."""
    layout = weights.model.layout
    if layout is None:
        return _init(weights, slots=slots)
    shapes = jax.eval_shape(partial(at_rest.init_slots, slots=slots), weights)
    shardings = at_rest.state_shardings(shapes, layout)
    return jax.jit(at_rest.init_slots, static_argnames="slots", out_shardings=shardings)(
        weights, slots=slots
    )


def _event(before: Writing, after: Writing, done: Completion | None) -> Event:
    told = joined(after.parts[len(before.parts) :])
    return Event(after.id, told.tokens, told.log_probs, top_of(told), done)


def require_fit(request: Request, slots: Slots, vocabulary: int) -> None:
    """Refuses a request for which the slots have no room. Raises `InputError`."""
    length, new = len(request.prompt), request.max_new_tokens
    if length + new > slots.places:
        raise InputError(
            f"a prompt of {length} tokens and {new} new ones exceed the {slots.places} places of a "
            "row; shorten the prompt, ask for fewer, or give rows more places"
        )
    if not 0 <= min(request.prompt) <= max(request.prompt) < vocabulary:
        raise InputError(f"a prompt holds ids outside 0 to {vocabulary - 1}, which the model has")
    if any(token >= vocabulary for token, _ in request.sampling.logit_bias):
        raise InputError(f"logit_bias holds ids outside 0 to {vocabulary - 1}, which the model has")
    for name, count, room in (
        ("stop tokens", len(request.stop), slots.stops),
        ("biased tokens", len(request.sampling.logit_bias), slots.biases),
        ("columns of adapters", len(request.adapter.gate), slots.columns),
    ):
        if count > room:
            raise InputError(f"a request has {count} {name}; there is room for {room}")

"""The engine: replies are those of the training forward, whoever else is answered meanwhile."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
from test_logits import shaped_by_hand

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Layout, MeshConfig, make_mesh
from hen_jax.core.trees import map_with_path
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import Decoder, abstract, merge, split
from hen_jax.models.quantised import quantised_base
from hen_jax.sampling import engine as e
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import PROMPT, REPLY, Sampling
from hen_jax.sampling.requests import Completion, Request, unpack_support
from hen_jax.sampling.slots import Slots
from hen_jax.sampling.speaker import continued
from hen_jax.sampling.weights import Weights, lay_out
from hen_jax.training.placement import parameter_shardings

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=97, width=32, head_dim=8, mlp_width=48, max_length=64
)
LORA = LoraConfig(2, 4.0, ("q", "down"))
V = CONFIG.vocab_size
PROMPTS = ((5, 6, 7, 8, 9, 10, 11), (12,), (13, 14, 15), tuple(range(40, 70)), (3, 3, 3, 3, 3))
SYSTEM = tuple(range(60, 82))
GREEDY = Sampling(temperature=0.0)
SLOTS = Slots(
    rows=4, places=48, chunk=4, prefill=(4, 16), prefill_tokens=16, stops=2, biases=2, top=3,
    support=True,
)  # fmt: skip
BARE = dataclasses.replace(SLOTS, top=0, support=False)  # less to compile
SAMPLINGS = [
    Sampling(temperature=0.7, top_k=20, top_p=0.9),
    Sampling(),
    Sampling(temperature=1.4, min_p=0.05),
    Sampling(1.0, 0, 0.8, 0.0, 1.2, 0.4, ((5, 2.0), (96, -1.0))),
    Sampling(temperature=0.0, repetition_penalty=1.3),
]


@pytest.fixture(scope="module")
def model() -> Decoder:
    """Random weights, scaled up so that the next token is neither certain nor a coin toss."""
    model = Decoder(jax.random.key(0), CONFIG, LORA)
    model.embed.embedding[...] = model.embed.embedding[...] * 20
    b = model.blocks.attn.q.lora_b
    b[...] = jax.random.normal(jax.random.key(1), b.shape)  # an adapter that does something
    return model


@pytest.fixture(scope="module")
def weights(model: Decoder) -> Weights:
    return lay_out(model, unroll_layers=False)


@jax.jit
def training_logits(model: Decoder, tokens: jax.Array, segments: jax.Array) -> jax.Array:
    hidden = model.hidden(tokens, jnp.arange(tokens.shape[1])[None], segments)
    return model.logits(hidden)


def uncached(model: Decoder, tokens: list[int]) -> np.ndarray:
    """Logits `[T, V]` by the training forward pass of one row, padded at the right."""
    T = len(tokens)
    row = jnp.asarray([tokens + [0] * (48 - T)])
    return np.asarray(training_logits(model, row, (jnp.arange(48) < T).astype(int)[None]))[0, :T]


def logits_behind(model: Decoder, request: Request, found: Completion) -> np.ndarray:
    """`[M, V]`: the training forward's logits of each token of a reply."""
    whole = uncached(model, [*request.prompt, *found.tokens[:-1].tolist()])
    return whole[len(request.prompt) - 1 :]


@pytest.mark.parametrize("unroll", [True, False])
def test_greedy_takes_the_argmax_of_the_training_forward(model: Decoder, unroll: bool):
    engine = e.Engine(lay_out(model, unroll), BARE if unroll else SLOTS)
    asked = [Request(prompt, 10, sampling=GREEDY) for prompt in (*PROMPTS, *PROMPTS[::-1])]
    for request, found in zip(asked, engine.run(asked), strict=True):
        chosen = logits_behind(model, request, found).argmax(-1)
        assert found.tokens.tolist() == chosen.tolist()
        assert (found.finish, found.prompt_tokens) == ("length", len(request.prompt))


def test_log_probabilities_are_those_of_the_training_forward_under_every_filter(model, weights):
    asked = [Request(p, 9, seed=7, sampling=s) for p, s in zip(PROMPTS, SAMPLINGS, strict=True)]
    for request, found in zip(asked, e.Engine(weights, SLOTS).run(asked), strict=True):
        logits, at = logits_behind(model, request, found), (np.arange(9), found.tokens)
        own = np.asarray(jax.nn.log_softmax(logits))
        np.testing.assert_allclose(found.log_probs, own[at], atol=1e-4)
        shaped = []
        for place, row in enumerate(logits):
            marks = np.isin(np.arange(V), request.prompt) * PROMPT
            marks |= np.isin(np.arange(V), found.tokens[:place]) * REPLY
            shaped.append(shaped_by_hand(row, marks, request.sampling))
        drawn_from = np.asarray(jax.nn.log_softmax(np.stack(shaped)))
        greedy = request.sampling.temperature == 0
        wanted = np.zeros(9) if greedy else drawn_from[at]
        np.testing.assert_allclose(found.sampling_log_probs, wanted, atol=1e-4)
        best = np.argsort(-logits)[:, :3]
        assert found.top.tokens.tolist() == best.tolist()
        np.testing.assert_allclose(found.top.log_probs, np.take_along_axis(own, best, 1), atol=1e-4)
        np.testing.assert_allclose(
            found.top.sampling_log_probs, np.take_along_axis(drawn_from, best, 1), atol=1e-4
        )
        if request.sampling.filters:
            support = unpack_support(found.support, V)
            assert (support == np.isfinite(shaped)).all()
            assert support[at].all()
        else:
            assert found.support is None


def test_a_reply_is_the_same_whoever_else_is_answered(weights):
    """To rounding where somebody waits, for chunks end earlier then and prompts are read together;
    bit for bit where nobody does."""
    for sampling in (GREEDY, Sampling(temperature=1.3, top_k=30)):
        mine = Request(PROMPTS[0], 12, seed=5, sampling=sampling)
        others = [Request(p, n, seed=9) for p, n in zip(PROMPTS[1:], (3, 20, 7, 1), strict=True)]
        alone = e.Engine(weights, SLOTS).run([mine])[0]
        for asked in ([mine, *others], [*others, mine]):
            found = e.Engine(weights, SLOTS).run(asked)[asked.index(mine)]
            assert found.tokens.tolist() == alone.tokens.tolist()
            np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=1e-5)
        engine = e.Engine(weights, SLOTS)
        engine.submit(mine)
        events = engine.step()
        for request in others[:3]:
            engine.submit(request)
        while engine.busy:
            events += engine.step()
        found = next(one.completion for one in events if one.completion and one.id == 0)
        np.testing.assert_array_equal(found.tokens, alone.tokens)
        np.testing.assert_array_equal(found.log_probs, alone.log_probs)
        told = np.concatenate([one.tokens for one in events if one.id == 0])
        np.testing.assert_array_equal(told, alone.tokens)


def test_replies_differ_by_seed_and_by_nothing_else(weights):
    asked = [Request(PROMPTS[0], 12, seed=seed) for seed in (1, 2, 1, 3, 2)]
    found = [one.tokens.tolist() for one in e.Engine(weights, SLOTS).run(asked)]
    assert found[0] == found[2]
    assert found[1] == found[4]
    assert len(set(map(tuple, found))) == 3


def test_rows_come_and_go_without_a_compilation(model, weights):
    """Prompts are read in 2 sizes, by up to 4 rows (1 of the larger), after something or not."""
    programs = {e._step: 1, e._prefill: (2 + 1) * 2, e._admit: 2, e._copy: 2}
    before = {program: program._cache_size() for program in programs}
    engine, rng = e.Engine(weights, SLOTS), np.random.default_rng(0)
    for round_ in range(3):
        engine.run(
            Request(
                tuple(rng.integers(0, V, rng.integers(1, 30)).tolist()),
                int(rng.integers(1, 17)),
                stop=(1,) * int(rng.integers(0, 3)),
                sampling=SAMPLINGS[int(rng.integers(5))],
            )
            for _ in range(7)
        )
        other = lay_out(jax.tree.map(lambda x: x * 0.9, model), unroll_layers=False)
        engine.use(other if round_ == 0 else weights)  # as after an update
    for program, most in programs.items():
        assert program._cache_size() - before[program] <= most


def test_a_stop_string_may_stand_in_the_stop_token_itself(weights):
    def text_of(ids):
        return "".join(f"<{one}>" for one in ids)

    free = (
        e.Engine(weights, SLOTS).run([Request(PROMPTS[0], 6, sampling=GREEDY)])[0].tokens.tolist()
    )
    third = free[2]
    assert third not in free[:2]
    settings = Generating(6, (third,), GREEDY, (f"<{third}>",))
    (reply,) = continued([PROMPTS[0]], weights, text_of, settings)
    assert reply.stopped
    assert reply.text == text_of(free[:2])


@pytest.mark.parametrize("program", ["_prefill", "_step"])
def test_an_interrupted_step_leaves_no_trace(weights, monkeypatch, program):
    asked, real = Request(SYSTEM, 8, sampling=GREEDY), getattr(e, program)
    alone = e.Engine(weights, BARE, key="a").run([asked])[0]
    engine = e.Engine(weights, BARE, key="a")

    def broken(*given, **how):
        if program == "_step":
            real(*given, **how)  # the state that it was given is gone
        raise KeyboardInterrupt

    engine.submit(asked)
    with monkeypatch.context() as patch:
        patch.setattr(e, program, broken)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    found = engine.run([asked])[0]
    assert (found.tokens.tolist(), found.cached_tokens) == (alone.tokens.tolist(), 0)
    np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=1e-5)


@pytest.mark.parametrize("draft", [0, 2])
def test_reading_as_much_of_the_cache_as_is_filled_changes_nothing(draft, monkeypatch):
    """600 places, of which 256 are read until a row has more; guessing, and without."""
    model = Decoder(jax.random.key(0), dataclasses.replace(CONFIG, max_length=700))
    slots = dataclasses.replace(
        BARE, rows=2, places=600, prefill=(4, 64), prefill_tokens=64, draft=draft
    )
    monkeypatch.setattr(e.drafting, "pays", lambda worth: True)
    long = tuple(np.random.default_rng(0).integers(0, V, 247).tolist())
    asked = [Request(PROMPTS[0], 40, sampling=GREEDY), Request(long, 20, sampling=GREEDY)]
    program, found, read = e._guess if draft else e._step, [], []
    before = program._cache_size()
    for platform in ("cpu", "tpu"):
        engine = e.Engine(lay_out(model, unroll_layers=draft > 0), slots)
        engine.platform = platform
        own = engine._reads
        monkeypatch.setattr(engine, "_reads", lambda own=own: read.append(own()) or read[-1])
        found.append(engine.run(asked))
    assert set(read) == {256, slots.room, None}
    assert read.index(256) < read.index(slots.room) < read.index(None)
    assert program._cache_size() - before == 3
    for bounded, whole in zip(*found, strict=True):
        assert bounded.tokens.tolist() == whole.tokens.tolist()
        np.testing.assert_allclose(bounded.log_probs, whole.log_probs, atol=1e-5)


def test_how_much_of_the_cache_may_be_read_are_few_sizes():
    sizes = [dataclasses.replace(BARE, places=places).reads for places in (60, 512, 2044, 5000)]
    assert sizes == [(64,), (256, 516), (256, 1024, 2048), (256, 1024, 5004)]


def test_a_reply_ends_with_its_stop_token_or_string(weights):
    engine = e.Engine(weights, SLOTS, decode=lambda ids: "".join(f"<{one}>" for one in ids))
    free = engine.run([Request(PROMPTS[0], 12, sampling=GREEDY)])[0].tokens.tolist()
    place = next(n for n in range(5, 12) if free[n] not in free[:n])
    string = f"{free[place]}>"[1:]  # begins within a token
    first = next(n for n in range(12) if string in "".join(f"<{one}>" for one in free[: n + 1]))
    asked = [
        Request(PROMPTS[0], 12, (free[place],), sampling=GREEDY),
        Request(PROMPTS[0], 12, stop_strings=("none", string), sampling=GREEDY),
        Request(PROMPTS[0], 2, (free[place],), sampling=GREEDY),
    ]
    by_token, by_string, by_length = engine.run(asked)
    assert (by_token.tokens.tolist(), by_token.finish) == (free[: place + 1], "stop")
    assert (by_string.tokens.tolist(), by_string.finish) == (free[: first + 1], "stop")
    assert by_string.stop_string == string
    assert len(by_string.log_probs) == len(by_string.top.tokens) == first + 1
    assert (by_length.tokens.tolist(), by_length.finish) == (free[:2], "length")
    assert not engine.busy


def test_samples_of_a_prompt_and_a_common_beginning_are_read_once(weights, monkeypatch):
    read = []
    prefill = e._prefill

    def counted(weights, state, piece, resumed):
        read.append(piece.tokens[np.asarray(piece.slot) < SLOTS.rows].size)
        return prefill(weights, state, piece, resumed=resumed)

    monkeypatch.setattr(e, "_prefill", counted)
    prompts = [SYSTEM, SYSTEM, SYSTEM, (*SYSTEM, 1, 2, 3, 4, 5)]
    asked = [Request(p, 6, seed=n) for n, p in enumerate(prompts)]
    engine = e.Engine(weights, SLOTS, key="a")
    together = engine.run(asked)
    assert [one.cached_tokens for one in together] == [0, 21, 21, 21]
    assert sum(read) == (16 + 4 + 4) + (4 + 4)  # 21 tokens once; of the longest 5 more
    for request, found in zip(asked, together, strict=True):
        alone = e.Engine(weights, SLOTS).run([request])[0]
        assert found.tokens.tolist() == alone.tokens.tolist()
        np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=1e-5)
    # A later turn goes on from what was written; other weights begin anew.
    later = Request((*asked[3].prompt, *together[3].tokens.tolist(), 9), 2)
    assert engine.run([later])[0].cached_tokens == len(later.prompt) - 2
    engine.use(weights, key="a")
    assert engine.run([later])[0].cached_tokens == len(later.prompt) - 1
    engine.use(weights, key="b")
    assert engine.run([later])[0].cached_tokens == 0


def test_a_cancelled_request_leaves_its_slot_to_others(weights):
    engine = e.Engine(weights, SLOTS)
    numbers = [engine.submit(Request(p, 16, sampling=GREEDY)) for p in (*PROMPTS, PROMPTS[0])]
    engine.step()
    cut, unread = engine.cancel(numbers[1]), engine.cancel(numbers[5])
    assert (cut.finish, len(cut.tokens)) == ("cancelled", SLOTS.chunk)
    assert (unread.finish, len(unread.tokens)) == ("cancelled", 0)
    assert engine.cancel(99) is None
    done = list(itertools.chain(*(engine.step() for _ in range(12))))
    finished = {one.id for one in done if one.completion}
    assert finished == {numbers[0], numbers[2], numbers[3], numbers[4]}
    assert not engine.busy


def test_eight_devices_answer_as_one_does(model, weights):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = abstract(CONFIG, LORA, Execution(), Layout(mesh))
    where = parameter_shardings(spread, mesh)
    graphdef, adapter, base = split(model)
    parts = [
        map_with_path(lambda path, leaf: jax.device_put(leaf, where[path]), tree)
        for tree in (adapter, base)
    ]
    del graphdef
    sharded = jax.jit(lambda *trees: lay_out(merge(split(spread).graphdef, *trees), False))(*parts)
    engine = e.Engine(sharded, BARE)
    keys = engine.state.cache.layers.keys
    assert keys.sharding.spec[1:3] == (("data", "fsdp"), "tensor")
    asked = [Request(p, 9, seed=7, sampling=s) for p, s in zip(PROMPTS, SAMPLINGS, strict=True)]
    for found, alone in zip(engine.run(asked), e.Engine(weights, SLOTS).run(asked), strict=True):
        assert found.tokens.tolist() == alone.tokens.tolist()
        np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=1e-4)
    assert engine.state.cache.layers.keys.sharding == keys.sharding


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Request(()), "holds no token"),
        (lambda: Request((1,), 0), "max_new_tokens is 0"),
        (lambda: Request((1,), seed=-1), "seed is -1"),
        (lambda: Sampling(top_k=2**31), "top_k is 2147483648"),
        (lambda: Request((1,), stop_strings=("",)), "stop string is empty"),
        (lambda: Slots(rows=0), "at least 1"),
        (lambda: Slots(prefill=(64, 16)), "increasing"),
    ],
)
def test_bad_requests_are_refused_with_the_remedy(make, says: str):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(tuple(range(40)), 9), "exceed the 48 places"),
        (Request((97,), 1), "a prompt holds ids outside 0 to 96"),
        (
            Request((1,), 1, sampling=Sampling(logit_bias=((97, 1.0),))),
            "logit_bias holds ids outside 0 to 96",
        ),
        (Request((1,), 1, stop=(1, 2, 3)), "3 stop tokens; there is room for 2"),
        (Request((1,), 1, stop_strings=("a",)), "need the tokenizer's decode"),
    ],
)
def test_what_the_engine_cannot_answer_is_refused_when_asked(weights, request_, says):
    with pytest.raises(InputError, match=says):
        e.Engine(weights, SLOTS).submit(request_)


@pytest.mark.slow
def test_an_int8_base_and_a_narrow_cache_are_decoded_with(model):
    """Unrolled, as on a CPU; the narrow cache costs three digits."""
    narrow = dataclasses.replace(BARE, cache_dtype="bfloat16")
    graphdef, adapter, base = split(model)
    eighth = split(abstract(CONFIG, LORA, Execution(base_dtype="int8"))).graphdef
    rounded = merge(eighth, adapter, quantised_base(base))
    asked = [Request(PROMPTS[3], 6, sampling=GREEDY)]
    for decoder, slots, atol in (
        (rounded, BARE, 2e-5),
        (merge(graphdef, adapter, base), narrow, 2e-2),
    ):
        found = e.Engine(lay_out(decoder, unroll_layers=True), slots).run(asked)[0]
        logits = logits_behind(decoder, asked[0], found)
        own = np.asarray(jax.nn.log_softmax(logits))[np.arange(6), found.tokens]
        np.testing.assert_allclose(found.log_probs, own, atol=atol)

"""One shift, and rows in which nothing is lost and nothing runs into its neighbour."""

import functools
import itertools
import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.types import SHARED
from hen_jax.data import samples
from hen_jax.data.examples import Document, Example, encode, shift
from hen_jax.data.hed import hed_conversation
from hen_jax.data.packing import Packing, efficiency, pack, pack_row
from hen_jax.data.prefixes import SHORTEST_PREFIX, find_prefixes
from hen_jax.data.schemas import read_records
from hen_jax.data.steered import steered_conversation
from hen_jax.data.stores import in_memory, rows_of
from hen_jax.text.chat import render
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import detect_format
from hen_jax.text.formats import CHATML
from hen_jax.text.tokenizer import ChatTokenizer

METHODS: tuple[Packing, ...] = get_args(Packing)
TOKENIZER = tiny_tokenizer()
CHAT = ChatTokenizer(TOKENIZER, CHATML)


def document(name: str, *contents: str) -> Document:
    roles = ["system", *["user", "assistant"] * len(contents)]
    messages = [Message(role, text) for role, text in zip(roles, contents, strict=False)]
    return Document(name, name, Conversation(tuple(messages)))


def unsystematic(one: Document) -> Document:
    """Without its system message, in whose place a format may have one of its own."""
    return Document(one.id, one.group, Conversation(one.conversation.messages[1:]))


def example(length: int, seed: int = 0) -> Example:
    generator = np.random.default_rng((length, seed))
    tokens = generator.integers(1, 100, length + 1).astype(np.int32)
    return Example(tokens, generator.random(length + 1) < 0.5, f"{length}-{seed}", "group")


@functools.cache
def shipped(name: str) -> list[Example]:
    if name == "hed":
        records = read_records(samples.path("hed/hed.en.jsonl"), "hed")
        documents = [Document(r.id, r.statement_id, hed_conversation(r)) for r in records]
    else:
        contexts = ("distress", "career", "learning", "writing")
        paths = [samples.path(f"eea/{context}.jsonl") for context in contexts]
        records = [record for path in paths for record in read_records(path, "steered")]
        documents = [Document(r.id, r.group, steered_conversation(r)) for r in records]
    encoded = encode(documents, CHAT, max_length=1024)
    assert encoded.dropped == encoded.truncated == ()
    return encoded.examples


def test_shift_is_by_one_with_the_mask_of_the_target():
    tokens, targets, mask = shift(
        Example(np.array([7, 8, 9]), np.array([False, False, True]), "", "")
    )
    assert (tokens.tolist(), targets.tolist(), mask.tolist()) == ([7, 8], [8, 9], [False, True])


def test_the_reply_is_predicted_from_the_last_token_of_the_prompt():
    (made,) = encode([document("a", "s", "Hi", "Yes")], CHAT, max_length=99).examples
    tokens, targets, mask = shift(made)
    assert TOKENIZER.decode(targets[mask]) == "Yes<|im_end|>"
    assert TOKENIZER.decode(tokens[mask][:1]) == "\n"


def test_an_example_that_would_train_on_nothing_is_named():
    with pytest.raises(InputError, match="record lonely: no token of it would train"):
        encode([document("lonely", "s", "Hi")], CHAT, max_length=99)


def test_a_long_document_loses_its_oldest_turns_or_is_left_out():
    long = document("long", "Be kind.", "one " * 40, "Yes.", "two", "No.", "three", "So.")
    fits = document("fits", "Be kind.", "two", "No.")
    hopeless = document("hopeless", "Be kind.", "one", "Yes " * 80)
    kept = Conversation((long.conversation.messages[0], *long.conversation.messages[3:]))
    options = {"tokenizer": CHAT}
    exact = len(render(kept, **options).tokens) - 1

    cut = encode([long, fits, hopeless], **options, max_length=exact)
    assert [e.id for e in cut.examples] == ["long", "fits"]
    assert (cut.truncated, cut.dropped) == (("long",), ("hopeless",))
    assert cut.examples[0].tokens.tolist() == render(kept, **options).tokens.tolist()
    assert "1 of them without their oldest turns, 1 left out" in cut.summary()

    plain = document("plain", *[message.content for message in long.conversation.messages])
    for one, chat_format in itertools.product(
        (long, unsystematic(plain)), (CHATML, detect_format(TOKENIZER))
    ):
        for limit in range(20, exact + 40, 3):
            quick = encode([one], ChatTokenizer(TOKENIZER, chat_format), max_length=limit).examples
            with pytest.MonkeyPatch.context() as slowly:
                slowly.setattr("hen_jax.text.chat._parts", lambda *_: False)
                slow = encode(
                    [one], ChatTokenizer(TOKENIZER, chat_format), max_length=limit
                ).examples
            assert [e.tokens.tolist() for e in quick] == [e.tokens.tolist() for e in slow]
            assert [e.mask.tolist() for e in quick] == [e.mask.tolist() for e in slow]

    shorter = encode([long], **options, max_length=exact - 1)
    assert TOKENIZER.decode(shorter.examples[0].tokens).count("<|im_end|>") == 3

    whole = encode(
        [long], **options, max_length=len(render(long.conversation, **options).tokens) - 1
    )
    assert whole.truncated == whole.dropped == ()

    dropped = encode([long, fits], **options, max_length=exact, overlong="drop").dropped
    assert dropped == ("long",)


@pytest.mark.parametrize("limit", [60, 120, 200, 300])
def test_rendering_only_the_ends_of_long_documents_changes_nothing(monkeypatch, limit):
    """The guess is made from two short Chinese documents: for the others it is far off."""
    random = np.random.default_rng(0)
    words = ("嗯，好的。", "a ", "one two three four five ", "12345 ")
    documents = [document("0", "s", "嗯", "好"), document("1", "s", "嗯嗯", "好好")]
    for number in range(2, 60):
        said = [words[random.integers(4)] * random.integers(1, 12) for _ in range(9)]
        documents.append(document(str(number), "Be kind.", *said[: random.integers(2, 9)]))
    documents += [unsystematic(one) for one in documents[2:20]]
    found = []
    for sample in (2, len(documents)):
        monkeypatch.setattr("hen_jax.data.examples.SAMPLE", sample)
        found.append(
            encode(documents, ChatTokenizer(TOKENIZER, detect_format(TOKENIZER)), max_length=limit)
        )
    quick, slow = found
    assert (quick.truncated, quick.dropped) == (slow.truncated, slow.dropped)
    assert len(slow.truncated) > 5 or limit == 60
    for ours, theirs in zip(quick.examples, slow.examples, strict=True):
        assert ours.id == theirs.id
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert ours.mask.tolist() == theirs.mask.tolist()


@given(st.lists(st.integers(1, 30), max_size=40), st.sampled_from(METHODS))
def test_every_item_is_in_exactly_one_row_that_holds_it(lengths, packing):
    rows = pack(lengths, 30, packing)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= 30 for row in rows)


@given(st.lists(st.integers(1, 30), max_size=40))
def test_fits_are_what_their_names_say(lengths):
    """Against the plain definitions, which look at every row."""

    def plain(order, choose):
        rows: list[list[int]] = []
        for index in order:
            room = [30 - sum(lengths[i] for i in row) for row in rows]
            fitting = [at for at, left in enumerate(room) if left >= lengths[index]]
            if fitting:
                rows[choose(fitting, room)].append(index)
            else:
                rows.append([index])
        return rows

    in_order = range(len(lengths))
    tightest = plain(
        sorted(in_order, key=lambda i: -lengths[i]),
        lambda fitting, room: min(fitting, key=lambda at: room[at]),
    )
    ours = pack(lengths, 30, "best_fit")
    assert sorted(sum(lengths[i] for i in r) for r in ours) == sorted(
        sum(lengths[i] for i in r) for r in tightest
    )


def test_rows_that_must_be_full_to_the_last_position_are():
    lengths = [44, 24, 24, 22, 21, 17, 8, 8, 6, 6]  # 180: three full rows of 60
    assert len(pack(lengths, 60, "best_fit")) == 4
    rows = pack(lengths, 60)
    assert [sum(lengths[index] for index in row) for row in rows] == [60, 60, 60]


def test_an_item_longer_than_a_row_is_refused():
    with pytest.raises(InputError, match="31 positions does not fit in a row of 30"):
        pack([3, 31], 30)


@given(st.lists(st.integers(1, 9), max_size=3).filter(lambda lengths: sum(lengths) <= 12))
def test_a_packed_row_holds_each_example_whole_and_apart(lengths):
    examples = [example(length, seed) for seed, length in enumerate(lengths)]
    row = pack_row(examples, 12)
    for segment, made in enumerate(examples, start=1):
        tokens, targets, mask = shift(made)
        inside = row.segments == segment
        assert row.tokens[inside].tolist() == tokens.tolist()
        assert row.targets[inside].tolist() == targets.tolist()
        assert row.mask[inside].tolist() == mask.tolist()
        assert row.positions[inside].tolist() == list(range(made.length))
    padding = row.segments == 0
    assert padding.sum() == 12 - sum(lengths)
    assert not row.mask[padding].any()


def test_worked_example_of_the_docstring():
    row = pack_row([example(3), example(2)], 6)
    assert row.segments.tolist() == [1, 1, 1, 2, 2, 0]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0]
    assert pack([6, 5, 4, 3], 9) == [[0, 3], [1, 2]]
    shared = pack_row([example(3), example(2)], 6, prefix=1)
    assert shared.segments.tolist() == [SHARED, 1, 1, 2, 0, 0]
    assert shared.positions.tolist() == [0, 1, 2, 1, 0, 0]
    assert pack([6, 5, 4, 3], 9, "shared_prefix", 2) == [[0, 1], [2, 3]]


@st.composite
def opened(draw) -> list[Example]:
    """Examples whose prefixes differ late, of two tokens so that they may go on alike."""
    tokens = st.integers(1, 2)
    prefixes = draw(st.lists(st.lists(tokens, max_size=9), min_size=1, max_size=3))
    quiet = draw(
        st.integers(SHORTEST_PREFIX - 6, SHORTEST_PREFIX + 9)
    )  # tokens before the first that may train
    made = []
    for number in range(draw(st.integers(1, 14))):
        own = draw(st.lists(tokens, min_size=2, max_size=8))
        ids = np.array(
            [0] * (SHORTEST_PREFIX - 3) + draw(st.sampled_from(prefixes)) + own, np.int32
        )
        trains = np.array([draw(st.booleans()) for _ in ids]) & (np.arange(len(ids)) >= quiet)
        made.append(Example(ids, trains, str(number), str(number)))
    return made


@given(opened())
def test_a_group_begins_with_the_most_that_all_of_it_share_and_none_trains_in(examples):
    """Against the plain definition; an answer that begins early so cuts it short."""

    def shared(members: list[Example], length: int) -> bool:
        first = members[0].tokens[:length].tolist()
        return all(
            length < one.length
            and one.tokens[:length].tolist() == first
            and not shift(one).mask[:length].any()
            for one in members
        )

    found = find_prefixes(examples)
    assert found.prefix[0] == 0
    for made, group in zip(examples, found.group, strict=True):
        alike = [other for other in examples if shared([made, other], SHORTEST_PREFIX)]
        if not alike:
            assert group == 0
        else:
            mine = [examples[at].id for at in np.flatnonzero(found.group == group)]
            assert mine == [other.id for other in alike]
            assert found.prefix[group] == max(p for p in range(made.length) if shared(alike, p))


@given(opened())
def test_every_example_is_whole_in_a_row_that_holds_the_opening_once(examples):
    rows = rows_of(in_memory(examples), 36, "shared_prefix")
    assert sorted(item for row in rows for item in row) == list(range(len(examples)))
    for items, prefix in zip(rows, rows.prefix, strict=True):
        row = pack_row([examples[item] for item in items], 36, prefix)
        shared = prefix if len(items) > 1 else 0
        assert (row.segments == SHARED).tolist() == [at < shared for at in range(36)]
        for segment, item in enumerate(items, start=1):
            own = row.segments == segment
            whole = np.flatnonzero(own | (row.segments == SHARED))
            tokens, targets, mask = shift(examples[item])
            assert row.tokens[whole].tolist() == tokens.tolist()
            assert row.mask[whole].tolist() == mask.tolist()
            assert row.positions[whole].tolist() == list(range(len(tokens)))
            # The last position of the prefix predicts another token in each example: it has none.
            aimed = np.delete(np.arange(len(tokens)), [shared - 1] if shared else [])
            assert row.targets[whole][aimed].tolist() == targets[aimed].tolist()
        own = sum(examples[item].length - shared for item in items)
        assert (row.segments != 0).sum() == shared + own
    plain = rows_of(in_memory(examples), 36, "fewest_rows")
    assert len(rows) <= len(plain)
    if not rows.prefix.any():
        assert rows.items.tolist() == plain.items.tolist()
        assert rows.ends.tolist() == plain.ends.tolist()


def kind(first: int, prefix: int, count: int) -> list[Example]:
    """Records of one kind: the same prefix, then five tokens of their own that train."""
    prompt = np.arange(first, first + prefix)
    return [
        Example(np.append(prompt, [n] * 5).astype(np.int32), np.arange(prefix + 5) >= prefix,
                f"{first} {n}", "")
        for n in range(count)
    ]  # fmt: skip


def test_each_kind_of_record_has_its_opening_and_an_odd_one_spoils_neither():
    ours, theirs, few = kind(100, 20, 15), kind(200, 30, 12), kind(300, 40, 2)
    examples = [*itertools.chain(*zip(ours, theirs, strict=False)), example(25), *few, *ours[12:]]
    rows = rows_of(in_memory(examples), 64, "shared_prefix")
    laid: dict[int, list[Example]] = {}
    for items, prefix in zip(rows, rows.prefix.tolist(), strict=True):
        laid.setdefault(prefix, []).extend(examples[item] for item in items)
    # The last token of a prefix predicts the first that trains: it is each example's own.
    ids = {prefix: sorted(one.id for one in found) for prefix, found in laid.items()}
    assert ids == {
        0: sorted(one.id for one in [example(25), *few]),  # two would not fill the row they save
        19: sorted(one.id for one in ours),
        29: sorted(one.id for one in theirs),
    }


def test_examples_that_fill_the_rows_of_others_are_left_there():
    """Beside each of four long examples there is room for one of thirteen, and for no more."""
    store = in_memory([*(example(40, seed) for seed in range(4)), *kind(100, 20, 13)])
    assert len(rows_of(store, 64, "fewest_rows")) == 4 + 5
    rows = rows_of(store, 64, "shared_prefix")
    assert sorted(map(len, rows)) == [2, 2, 2, 2, 9]
    assert sorted(rows.prefix.tolist()) == [0, 0, 0, 0, 19]


def test_where_every_example_begins_otherwise_a_frequent_opening_is_still_found(monkeypatch):
    """And one that comes back after it was forgotten begins a group anew: nothing else is lost."""
    monkeypatch.setattr("hen_jax.data.prefixes.REMEMBERED", 3)
    frequent, others = kind(500, 20, 40), [kind(1000 + n, 20, 1)[0] for n in range(40)]
    mixed = [*itertools.chain(*zip(frequent, others, strict=True)), others[0], others[39]]
    found = find_prefixes(mixed)
    assert found.group.tolist()[:80:2] == [1] * 40
    assert found.group.tolist()[1:][::2][:40] == list(range(2, 42))
    assert found.group.tolist()[80:] == [42, 41]
    assert found.prefix.tolist() == [0] + [19] * 42


@pytest.mark.parametrize(("names", "most"), [(["hed"], 0.65), (["hed", "eea"], 0.95)])
def test_system_prompts_are_laid_once_a_row(names, most):
    """The English dialogues take two thirds of the rows, and train as many tokens.

    Packed with steered conversations, each of which begins otherwise, they save what they can.
    """
    examples = [made for name in names for made in shipped(name)]
    store = in_memory(examples)
    count: dict[Packing, int] = {}
    packings: tuple[Packing, ...] = ("fewest_rows", "shared_prefix")
    for packing in packings:
        rows = rows_of(store, 1024, packing)
        packed = [pack_row(store.read(i), 1024, p) for i, p in zip(rows, rows.prefix, strict=True)]
        filled = float(np.mean([row.segments != 0 for row in packed]))
        assert sum(row.mask.sum() for row in packed) == store.trained.sum()
        prefixes = dict(zip(*np.unique(rows.prefix, return_counts=True), strict=True))
        print(f"{names}, {packing}: {len(rows)} rows, {filled:.1%} filled, rows of {prefixes}")
        count[packing] = len(rows)
    found = find_prefixes(shipped("hed")).prefix.max()
    assert TOKENIZER.decode(shipped("hed")[0].tokens[:found])[-22:] == "No lectures, no lists."
    assert count["shared_prefix"] <= most * count["fewest_rows"]


@given(st.lists(st.integers(1, 12), max_size=7))
def test_the_fewest_rows_are_near_the_fewest_there_can_be(lengths):
    """Against every way to deal up to seven items; a greedy packing may use one row more."""

    def fewest(items: tuple[int, ...], rooms: tuple[int, ...]) -> int:
        if not items:
            return len(rooms)
        tries = [
            fewest(items[1:], (*rooms[:at], room - items[0], *rooms[at + 1 :]))
            for at, room in enumerate(rooms)
            if room >= items[0]
        ]
        return min([*tries, fewest(items[1:], (*rooms, 12 - items[0]))])

    assert len(pack(lengths, 12, "fewest_rows")) <= fewest(tuple(lengths), ()) + 1
    assert len(pack(lengths, 12, "fewest_rows")) <= len(pack(lengths, 12, "best_fit"))


LEAST_FILLED = {"hed": 0.95, "eea": 0.92, "both": 0.95}
"""Steered conversations alone are of a third to a half of a row of 1,024 each: see
`test_no_packing_of_steered_conversations_fills_more`. A run packs them with others, or longer."""


@pytest.mark.parametrize("name", LEAST_FILLED)
def test_packing_wastes_little_and_trains_the_same_tokens(name):
    examples = shipped("hed") + shipped("eea") if name == "both" else shipped(name)
    lengths = [made.length for made in examples]
    trained = sum(int(shift(made).mask.sum()) for made in examples)
    share = {}
    for packing in METHODS:
        rows = pack(lengths, 1024, packing)
        packed = [pack_row([examples[index] for index in row], 1024) for row in rows]
        assert sum(row.mask.sum() for row in packed) == trained
        share[packing] = efficiency(examples, rows, 1024)
        print(f"{name}, {packing}: {len(rows)} rows, {share[packing]:.1%} filled")
    assert share["fewest_rows"] >= LEAST_FILLED[name]
    assert share["fewest_rows"] >= share["best_fit"] > share["none"]


def test_no_packing_of_steered_conversations_fills_more():
    """A proof by linear programming: fewer rows would need a price list that no row can pay.

    Give each length a price such that no set of items that fits into a row costs more than 1. Then
    there are at least as many rows as all items cost together. The prices are the dual solution of
    the packing with fractions of rows (Gilmore and Gomory, 1961), which is improved with the most
    expensive row under the last prices until the rows we use are known to be the fewest.
    """
    lengths = np.array([made.length for made in shipped("eea")])
    rows = pack(lengths.tolist(), 1024)
    sizes, place, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    ways = np.array([np.bincount(place[row], minlength=len(sizes)) for row in rows]).T
    fewest = 0.0
    while fewest <= len(rows) - 1:
        solved = linprog(np.ones(ways.shape[1]), A_ub=-ways, b_ub=-counts)
        prices = -solved.ineqlin.marginals
        most, row = dearest_row(prices, sizes, 1024)
        assert most > 1 + 1e-9 or counts @ prices > len(rows) - 1, "the bound is lower"
        fewest = max(fewest, counts @ prices / max(most, 1.0))
        ways = np.column_stack([ways, row])
    assert math.ceil(fewest - 1e-6) == len(rows)
    assert 0.92 < lengths.sum() / (1024 * len(rows)) < 0.95
    longer = pack(lengths.tolist(), 2048)
    assert lengths.sum() / (2048 * len(longer)) >= 0.95


def dearest_row(prices: np.ndarray, sizes: np.ndarray, room: int) -> tuple[float, np.ndarray]:
    """The most that items fitting into a row can cost, and how many of each size they are."""
    best, chosen = np.zeros(room + 1), np.full(room + 1, -1)
    for size in range(int(sizes.min()), room + 1):
        fit = int(np.searchsorted(sizes, size, "right"))
        costs = best[size - sizes[:fit]] + prices[:fit]
        item = int(costs.argmax())
        best[size] = max(best[size - 1], costs[item])
        if costs[item] > best[size - 1]:
            chosen[size] = item
    row, left = np.zeros(len(sizes), int), room
    while left > 0:
        if chosen[left] < 0:
            left -= 1
            continue
        row[chosen[left]] += 1
        left -= int(sizes[chosen[left]])
    return float(best[room]), row

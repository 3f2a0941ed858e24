"""Methods as steps: what they ask, what they make of answers, and that all share a batch."""

import json
import math
import re
import time

import numpy as np
import pytest

from hen_jax.core.errors import InputError
from hen_jax.methods import coe, distil, ebg, hef, muffin, tooled
from hen_jax.methods.definitions import DEFINITIONS, read_definitions, shipped, with_definitions
from hen_jax.methods.emotion_models import (
    EmotionModel,
    lexicon_in_labels,
    lexicon_model,
    likeliest_labels,
    read_lexicon,
    top_k_recall,
)
from hen_jax.methods.emotions import EBG_LABELS, ED_LABELS, HED_LABELS
from hen_jax.methods.lenses import lens_names, load_lens
from hen_jax.methods.play import Outcome, plainly, play
from hen_jax.methods.sections import parse_label, parse_sections, with_system
from hen_jax.methods.table import (
    METHOD_LABELS,
    METHODS,
    Parts,
    levers_of,
    method_named,
    with_levers,
)
from hen_jax.methods.tools import Call, Tool, answered, faq_tool, knowledge_tool, parse_call
from hen_jax.text.conversation import Message, Reply

RAIN = (Message("user", "My scooter broke down in the rain and I am so sad."),)
ZH = (Message("user", "电动车坏在雨里了，好难过。"),)
LEXICON = {
    "sad": frozenset({"sad"}),
    "rain": frozenset({"sad", "worried"}),
    "glad": frozenset({"happy"}),
}
"""A demonstration of three words; ours."""

COE = (
    "Emotion words: sad\nCause: The scooter broke.\nStrategy: exploration\n"
    "Reply: Where are you now?"
)


def scripted(*rules, otherwise="Plain."):
    """A chat that answers by the first rule whose pattern is in the whole conversation, and keeps
    what it was asked."""

    def chat(asked):
        chat.rounds.append([list(messages) for messages in asked])
        return [Reply(_answer("\n".join(m.content for m in messages)), 7) for messages in asked]

    def _answer(text):
        return next((said for pattern, said in rules if re.search(pattern, text)), otherwise)

    chat.rounds = []
    return chat


def run(method, chat, conversation=RAIN):
    (played,) = play([method(conversation)], chat)
    return played


def test_all_methods_share_each_round_and_each_costs_its_own():
    chat = scripted(("in exactly these lines", COE))
    steps = [plainly(RAIN), coe.coe("cbt")(RAIN), muffin.muffin(3)(RAIN)]
    clock = iter(range(0, 1000, 10))
    base, lens, several = play(steps, chat, clock=lambda: next(clock))
    assert [len(one) for one in chat.rounds] == [5, 3]  # one candidate remains, three facets
    assert (base.calls, base.rounds, base.tokens) == (1, 1, 7)
    assert (lens.calls, several.calls, several.rounds) == (1, 6, 2)
    assert base.seconds + lens.seconds + several.seconds == pytest.approx(20)
    assert base.seconds == pytest.approx(10 / 5)
    assert base.read == len(RAIN[0].content)
    assert play([], chat) == []


def test_a_trace_is_kept_apart_from_the_reply():
    played = run(coe.coe("cbt"), scripted(("in exactly these lines", COE)))
    assert played.outcome == Outcome(
        "Where are you now?",
        {"emotion_words": ("sad",), "cause": "The scooter broke.", "strategy": "EX"},
    )
    asked = scripted(("in exactly these lines", COE))
    run(coe.coe("cbt"), asked)
    ((messages,),) = asked.rounds
    assert messages[-1] == RAIN[0]


def test_five_variants_ask_in_five_ways_in_both_languages():
    for conversation, language in ((RAIN, "en"), (ZH, "zh")):
        texts = set()
        for variant in coe.VARIANTS:
            chat = scripted()
            run(coe.coe(variant), chat, conversation)
            texts.add(chat.rounds[0][0][0].content)
            assert coe.FRAMES[language].keys[-1] in chat.rounds[0][0][0].content
        assert len(texts) == 5
    assert lens_names() == ["cbt", "dbt", "pct", "rt"]
    assert set(coe.VARIANTS) == {"base", *lens_names()}


def test_an_answer_of_no_form_is_asked_again_and_then_answered_plainly():
    chat = scripted()
    played = run(coe.coe("dbt"), chat)
    assert played.outcome.reply == "Plain."
    assert played.outcome.failure == "its reasoning was not of the form asked for"
    assert (played.calls, played.rounds) == (3, 3)
    assert chat.rounds[1][0][-1].content.startswith("Answer again")
    assert tuple(chat.rounds[2][0]) == RAIN
    mended = scripted(("Answer again", COE), otherwise="Hm.")
    assert run(coe.coe("dbt"), mended).outcome.reply == "Where are you now?"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A: x\nB: y", {"A": "x", "B": "y"}),
        ("**A:** x\n  y\n- b： z", {"A": "x\n  y", "B": "z"}),
        ("B: y\nA: x", None),  # in another order
        ("A: x", None),
        ("A: x\nB:", None),
        ("A: x\nB: y\nA: z", None),  # twice
    ],
)
def test_sections(text, found):
    assert parse_sections(text, ("A", "B")) == found


def test_a_label_is_one_word_and_no_sentence():
    assert parse_label(' "Sad".\nBecause ...', ["sad", "happy"]) == "sad"
    assert parse_label("sad or happy", ["sad", "happy"]) is None
    assert parse_label("I think sad", ["sad"]) is None


def test_balance_is_the_entropy_of_strategies_over_ln_3():
    assert coe.balance(["ER", "IP", "EX"]) == pytest.approx(1)
    assert coe.balance(["ER"] * 4) == 0
    assert coe.balance(["ER", "EX"]) == pytest.approx(math.log(2) / math.log(3))
    assert math.isnan(coe.balance([]))


@pytest.mark.parametrize(
    ("text", "told"),
    [("name: x\n", "a lens has the fields name, title"), ("[", "mine.yaml: not valid YAML")],
)
def test_a_lens_of_a_file_that_is_none_is_refused(tmp_path, text, told):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        load_lens(str(tmp_path / "mine.yaml"))
    with pytest.raises(InputError, match="lens 'freud'; allowed: cbt, dbt, pct, rt"):
        load_lens("freud")


def test_definitions_of_every_label_are_in_every_call():
    chat = scripted(("Answer with one word", "sad"))
    model = lexicon_model(LEXICON, tuple(HED_LABELS))
    run(with_definitions(hef.hef(model, tuple(HED_LABELS))), chat)
    assert len(chat.rounds) == 2
    for (messages,) in chat.rounds:
        assert all(f"- {label}: {text}" in messages[0].content for label, text in shipped().items())
    assert set(HED_LABELS) <= set(DEFINITIONS)


def test_definitions_of_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("sad: blue\n")
    chat = scripted()
    run(with_definitions(plainly, read_definitions(path)), chat)
    assert chat.rounds[0][0][0].content.endswith("- sad: blue")
    path.write_text("sad: []\n")
    with pytest.raises(InputError, match=r"mine.yaml: sad: no text"):
        read_definitions(path)


ANALYSIS = "Analysis: The scooter broke.\nAttribute: negative\nEmotion: sad"


def test_ebg_replies_on_top_of_its_analysis():
    chat = scripted(("Now reply to them", "Come in first."), ("work out what", ANALYSIS))
    played = run(ebg.ebg(), chat)
    assert played.outcome.reply == "Come in first."
    assert played.outcome.trace["emotion"] == "sad"
    second = chat.rounds[1][0]
    assert second[-2] == Message("assistant", ANALYSIS)
    assert len(EBG_LABELS) == 24
    assert len(set(ED_LABELS)) == 32


def test_an_analysis_with_an_unknown_label_is_none():
    assert ebg.parse_analysis(ANALYSIS, ["sad"], "en") == ("The scooter broke.", "negative", "sad")
    assert ebg.parse_analysis(ANALYSIS, ["happy"], "en") is None
    assert ebg.parse_analysis(ANALYSIS.replace("negative", "bad"), ["sad"], "en") is None
    found = ebg.Analysis("车坏了", "negative", "sad")
    assert ebg.parse_analysis(ebg.analysis_text(found, "zh"), ["sad"], "zh") == found


def test_ebg_has_the_labels_of_its_parts():
    worried = ANALYSIS.replace("sad", "worried")
    for parts, emotion in ((Parts(labels=METHOD_LABELS["hed"]), "worried"), (Parts(), None)):
        chat = scripted(("Now reply to them", "Come in."), ("work out what", worried))
        assert run(method_named("ebg", parts), chat).outcome.trace.get("emotion") == emotion
    with pytest.raises(InputError, match=r"no attribute .* of annoyed, .*give --labels ebg or hed"):
        method_named("ebg", Parts(labels=METHOD_LABELS["ed"]))


def test_rows_of_both_stages_train_their_own_part():
    dialogue = (*RAIN, Message("assistant", "Come in."))
    found = ebg.Analysis("The scooter broke.", "negative", "sad")
    one, two = (ebg.training_row("r", dialogue, found, stage)["messages"] for stage in (1, 2))
    assert [m.get("train") for m in one] == [None, None, True]
    assert [m.get("train") for m in two] == [None, None, False, None, True]
    assert two[-1]["content"] == "Come in."
    with pytest.raises(InputError, match="record r: ends with the user"):
        ebg.training_row("r", RAIN, found, 1)


def test_hef_asks_about_the_rest_only_where_none_of_the_likeliest_fits():
    model, labels = lexicon_model(LEXICON, tuple(HED_LABELS)), tuple(HED_LABELS)
    chat = scripted(("Answer with one word", "sad"), ("feels sad", "Ah."))
    played = run(hef.hef(model, labels), chat)
    assert played.outcome.trace["candidates"][0] == "sad"
    assert (played.calls, played.outcome.reply, played.outcome.failure) == (2, "Ah.", None)
    chat = scripted(("None of the likeliest", "angry"), ("Answer with one word", "none"))
    played = run(hef.hef(model, labels), chat)
    assert played.calls == 3
    assert played.outcome.trace["emotion"] == "angry"
    rest = chat.rounds[1][0][0].content
    assert "sad" not in rest.split("only:")[1]
    assert "angry" in rest


def test_what_is_switched_off_of_hef_is_not_in_its_prompts():
    model, labels = lexicon_model(LEXICON, tuple(HED_LABELS)), tuple(HED_LABELS)
    parts = Parts(emotion_model=model, labels=labels)
    texts = {}
    for name in ("hef", "hef-cause", "hef-two_stage", "hef-model"):
        chat = scripted(("Answer with one word", "sad"))
        run(method_named(name, parts), chat)
        texts[name] = [round_[0][0].content for round_ in chat.rounds]
    assert "rain, sad" in texts["hef"][-1]
    assert "words of theirs" not in texts["hef-cause"][-1]
    assert "Only if none" not in texts["hef-two_stage"][0]
    assert "words of theirs" in texts["hef-two_stage"][-1]
    assert texts["hef-model"] != texts["hef"]
    with pytest.raises(InputError, match="method 'hef' needs a small model"):
        method_named("hef", Parts())


def test_hef_is_right_where_the_large_model_alone_is_not():
    """A large model that answers the first label it is offered, and `sad` as the likeliest one."""
    labels, model = tuple(HED_LABELS), lexicon_model(LEXICON, tuple(HED_LABELS))

    def first(asked):
        said = [re.search(r"only: (\w+)", messages[0].content) for messages in asked]
        return [Reply(found[1] if found else "Ah.") for found in said]

    found = [run(one, first).outcome.trace["emotion"]
             for one in (hef.hef(model, labels), hef.hef(None, labels))]  # fmt: skip
    assert found == ["sad", "happy"]
    assert top_k_recall(model, [RAIN, ZH], ["sad", "angry"], 2) == 0.5


def test_a_lexicon_counts_words_and_heeds_negation():
    model = lexicon_model(LEXICON, ("happy", "sad", "worried"), smoothing=0.5)
    probs = model.emotion_probs(RAIN)  # sad 1 + rain 1/2, worried 1/2
    assert probs.tolist() == pytest.approx([0.5 / 3.5, 2.0 / 3.5, 1.0 / 3.5])
    assert model.cause_words(RAIN) == [("rain", 1.0), ("sad", 1.0)]
    said = (Message("user", "I am not really glad"),)
    assert model.emotion_probs(said).tolist() == pytest.approx([1 / 3] * 3)
    assert likeliest_labels(model, said, 2) == ["happy", "sad"]


def test_categories_of_the_nrc_lexicon_are_called_as_the_labels():
    nrc = {"cry": frozenset({"sadness", "negative"}), "hug": frozenset({"joy", "trust"}),
           "good": frozenset({"positive"}), "ache": frozenset({"numb"})}  # fmt: skip
    assert lexicon_in_labels(nrc, METHOD_LABELS["hed"]) == {
        "cry": {"sad"}, "hug": {"happy"}, "ache": {"numb"}}  # fmt: skip
    assert lexicon_in_labels(nrc, METHOD_LABELS["ed"])["hug"] == {"joyful", "trusting"}
    assert lexicon_in_labels({"cry": frozenset({"Sad"})}, ["sad"]) == {"cry": {"sad"}}
    for other in ("numb", "positive"):
        with pytest.raises(InputError, match=f"the emotions {other}, of which none is among"):
            lexicon_in_labels({"x": frozenset({other})}, METHOD_LABELS["hed"])


def test_a_lexicon_that_is_none_says_where_there_is_one(tmp_path):
    with pytest.raises(InputError, match=r"no such file; give a file .* saifmohammad\.com"):
        read_lexicon(tmp_path / "nrc.txt")
    path = tmp_path / "mine.txt"
    path.write_text("sad\tsadness\t1\nsad\tjoy\t0\n")
    assert read_lexicon(path) == {"sad": frozenset({"sadness"})}
    path.write_text("sad\tsadness\t1\nsad joy 0\n")
    with pytest.raises(InputError, match=r"mine.txt:2: no `word"):
        read_lexicon(path)


def test_muffin_says_the_first_helpful_candidate():
    said = iter(["Stop it.", "I hear you.", "Oh."])

    def chat(asked):
        def verdict(text):
            bad = "Stop it." in text
            if "fit what was said" in text:
                return "yes"
            return "non-adherent" if "Adherent" in text and bad else (
                "none" if bad else "adherent" if "Adherent" in text else "weak")  # fmt: skip

        return [
            Reply(next(said) if messages == RAIN else verdict(messages[-1].content))
            for messages in asked
        ]

    played = run(muffin.muffin(3), chat)
    assert played.outcome.reply == "I hear you."
    assert played.outcome.trace["helpful"] == [False, True, True]
    assert played.outcome.trace["unhelpful_rate"] == pytest.approx(1 / 3)
    assert played.calls == 3 + 9


@pytest.mark.parametrize(
    ("labels", "strict", "loose"),
    [
        (("yes", "adherent", "weak"), True, True),
        (("yes", "adherent", "none"), False, True),
        (("no", "non-adherent", None), False, False),
        (("yes", None, "strong"), None, True),
        ((None, None, None), None, None),
        (("yes", "non-adherent", None), False, None),
    ],
)
def test_helpful_is_the_and_of_three_facets(labels, strict, loose):
    found = dict(zip(("coherence", "skill", "empathy"), labels, strict=True))
    assert muffin.helpful(found) is strict
    assert muffin.helpful(found, "majority") is loose


def test_unhelpful_rate_counts_what_is_known():
    assert muffin.unhelpful_rate([True, False, None, False]) == (pytest.approx(2 / 3), 1)
    assert math.isnan(muffin.unhelpful_rate([None])[0])


KNOWLEDGE = "my scooter broke down\txReact\tstranded\nI passed the exam\txReact\tproud\n"
ASKS = json.dumps(
    {"tool": "commonsense", "arguments": {"event": "scooter broke", "relation": "xReact"}}
)


@pytest.fixture
def atomic(tmp_path):
    path = tmp_path / "atomic.tsv"
    path.write_text(KNOWLEDGE)
    return knowledge_tool(path)


def test_a_model_calls_a_tool_once_and_replies(atomic):
    chat = scripted(("stranded", "Stay dry."), ("You may ask a tool", ASKS))
    played = run(tooled.tooled([atomic]), chat)
    assert played.outcome.reply == "Stay dry."
    (call,) = played.outcome.trace["calls"]
    assert json.loads(call["answer"]) == {"xReact": ["stranded"]}
    assert chat.rounds[1][0][-1] == Message("tool", call["answer"])


def test_another_tool_in_its_place_keeps_the_run_valid(tmp_path, atomic):
    path = tmp_path / "other.tsv"
    path.write_text("a broken scooter\txReact\tcold\n")
    chat = scripted(("cold", "Warm up."), ("You may ask a tool", ASKS))
    assert run(tooled.tooled([knowledge_tool(path)]), chat).outcome.reply == "Warm up."
    path.write_text("Why do I shiver?\tYou are cold.\n")
    found = answered(Call("faq", {"question": "why shiver"}), {"faq": faq_tool(path)})
    assert json.loads(found.text) == {"answer": "You are cold."}


@pytest.mark.parametrize(
    ("says", "failure"),
    [
        (ASKS, "timeout"),
        (ASKS.replace("commonsense", "oracle"), "unknown tool"),
        (ASKS.replace("event", "what"), "bad arguments"),
        ('{"tool": "commonsense"', "bad call"),
    ],
)
def test_a_failing_tool_degrades_to_a_plain_reply(says, failure):
    slow = Tool("commonsense", "", {"event": "", "relation": ""}, lambda given: time.sleep(5))
    chat = scripted(("You may ask a tool", says))
    played = run(tooled.tooled([slow], tooled.ToolLimits(timeout=0.02)), chat)
    assert played.outcome.reply == "Plain."
    assert played.outcome.failure == f"tool call: {failure}"
    assert played.outcome.trace["calls"][0]["failure"] == failure


def test_a_tool_that_raises_and_one_that_is_asked_for_ever(atomic):
    broken = atomic._replace(answer=lambda given: {}[given["event"]])
    found = answered(parse_call(ASKS), {"commonsense": broken})
    assert found.failure == "error"
    assert "KeyError" in found.text
    played = run(tooled.tooled([atomic]), scripted(("You may ask a tool", ASKS)))
    assert played.outcome.failure == "more than 2 tool calls"
    assert played.calls == 4


def test_a_trace_calls_where_the_answer_is_worth_it(atomic):
    tools = {"commonsense": atomic}
    tries = [Call("commonsense", {"event": RAIN[0].content, "relation": one})
             for one in ("xWant", "xReact")]  # fmt: skip
    row = tooled.trace_row("r", (*RAIN, Message("assistant", "Stranded? I come.")), tools, tries)
    assert row["called"]
    assert [one["role"] for one in row["messages"]] == [
        "system", "user", "assistant", "tool", "assistant"]  # fmt: skip
    assert parse_call(row["messages"][2]["content"]).arguments["relation"] == "xReact"
    plain = tooled.trace_row("r", (*RAIN, Message("assistant", "I come.")), tools, tries)
    assert not plain["called"]
    assert len(plain["messages"]) == 3


def test_calls_are_scored_against_when_they_were_due():
    called, silent = {"calls": [{"failure": None}]}, {"calls": []}
    failed = {"calls": [{"failure": "timeout"}]}
    found = tooled.call_scores([called, failed, silent, called], [True, False, True, True])
    assert found == (0.75, 2 / 3, 1.0, 2 / 3, {"timeout": 1})
    assert math.isnan(tooled.call_scores([silent], [False]).precision)


def rated(**ratings):
    row = {"dialog_id": "d", "speaker_uttr": "It rains."}
    for name in distil.SOURCES:
        suffix = name if name == "human" else f"{name}_empathy"
        row |= {f"rating_{suffix}": str(ratings.get(name, 1)), f"response_{suffix}": f"{name}!"}
    return row


def test_the_held_out_rows_are_those_with_fewer_than_two_good_replies():
    rows = [
        distil.parse_rated_reply(rated(human=3)),  # one good reply: held out
        distil.parse_rated_reply(rated(human=2, chatgpt=3, llama=3)),
        distil.parse_rated_reply(rated(human=3, chatgpt=3)),
        distil.parse_rated_reply(
            rated(human=2, chatgpt=2, llama=3, gemini=3)
        ),  # chatgpt is not good
    ]
    assert [one.held_out for one in rows] == [True, False, False, False]
    (pair,) = distil.pair_rows(rows, "chatgpt")
    assert (pair["chosen"], pair["rejected"]) == ("chatgpt!", "human!")
    assert [one["completion"] for one in distil.sft_rows(rows, "chatgpt")] == ["chatgpt!"]
    same = rated(human=2, chatgpt=3, llama=3) | {"response_human": "chatgpt! "}
    assert distil.pair_rows([distil.parse_rated_reply(same)], "chatgpt") == []
    with pytest.raises(InputError, match=r"rating_human: 2\.5; allowed: 1, 2, 3"):
        distil.parse_rated_reply(rated() | {"rating_human": 2.5})


def test_a_sequence_of_improvements_builds_on_the_one_before():
    drafts = iter(["Draft.", "One.", "Two.", "Three."])
    chat = scripted()
    played = run(distil.improved("sequence"), lambda asked: (chat(asked), [Reply(next(drafts))])[1])
    assert played.outcome == Outcome("Three.", {"drafts": ["Draft.", "One.", "Two."]})
    assert chat.rounds[-1][0][-2] == Message("assistant", "Two.")
    assert "compassionate" in chat.rounds[-1][0][-1].content
    assert len(set(map(distil.improvement_texts, ("naive", "all", "weakest", "cognitive")))) == 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("coe", "method 'coe'; allowed: base"),
        ("ebg-cause", "switch 'cause' of 'ebg-cause'; allowed, each once: none"),
        ("base+rules+rules", "lever 'rules' of .*; allowed, each once: rules, definitions"),
        ("tooled", "method 'tooled' needs a tool"),
    ],
)
def test_a_name_that_is_no_method_is_refused(name, told):
    with pytest.raises(InputError, match=told):
        method_named(name, Parts())


def test_names_of_methods_with_levers():
    assert levers_of("hef") == ("model", "two_stage", "cause", "rules", "definitions")
    assert with_levers("hef", {"model", "two_stage", "rules"}, levers_of("hef")) == (
        "hef-cause+rules"
    )
    for name in METHODS:
        assert with_levers(name, levers_of(name), levers_of(name)).startswith(name)


def test_a_switch_that_is_not_varied_stays_on():
    chosen = ("two_stage", "cause", "definitions")
    assert with_levers("hef", chosen, chosen) == "hef+definitions"
    assert with_levers("hef", {"two_stage"}, chosen) == "hef-cause"
    assert with_levers("coe_cbt", {"rules"}, {"rules"}) == "coe_cbt+rules"
    without = {with_levers("hef", on, levers_of("hef")) for on in ((), ("cause",), ("two_stage",))}
    assert without == {"hef-model"}  # without the model its parts do nothing


def test_pecer_says_what_the_dialogue_shows():
    model = lexicon_model(LEXICON, ("happy", "sad", "worried"))
    chat, said = scripted(), (Message("user", "I panic, I am worried and sad."),)
    played = run(method_named("pecer", Parts(emotion_model=model)), chat, said)
    assert "the user seems" in chat.rounds[0][0][0].content
    assert "may leave them sad" in chat.rounds[0][0][0].content
    assert played.outcome.trace["reaction"] == "sad"
    assert played.outcome.trace["traits"][4] > 0.9
    chat = scripted()
    assert run(method_named("pecer", Parts()), chat, ZH).calls == 1
    assert chat.rounds[0][0] == list(ZH)


def test_a_system_message_is_added_to_or_made():
    assert with_system(RAIN, "X")[0] == Message("system", "X")
    both = with_system((Message("system", "A"), *RAIN), "X")
    assert (both[0].content, len(both)) == ("A\n\nX", 2)


def test_an_emotion_model_is_any_pair_of_functions():
    mine = EmotionModel(("sad",), lambda messages: np.ones(1), lambda messages: [("rain", 1.0)])
    chat = scripted(("Answer with one word", "sad"))
    played = run(hef.hef(mine, ("sad",)), chat)
    assert played.outcome.trace["cause_words"] == ["rain"]

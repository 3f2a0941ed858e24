"""Tasks of the survey: published scores equal their definitions; loaders on files of our own."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from scripted_arm import context
from sklearn.metrics import accuracy_score, f1_score

from hen_jax.core.errors import InputError
from hen_jax.data.empathetic_dialogues import check_empathetic_dialogues
from hen_jax.evaluation.figures import Drawing, measured
from hen_jax.evaluation.suite import LogProbs
from hen_jax.measures.choices import (
    Choice,
    ChoiceItem,
    question,
    read_label,
    read_letter,
    shown_order,
)
from hen_jax.measures.likelihoods import NOTHING, interaction, likeliest
from hen_jax.measures.suites.asking import accuracies, in_words
from hen_jax.measures.suites.labelled import f1_figures, majority_floor
from hen_jax.measures.tasks import empathetic_dialogues as ed
from hen_jax.measures.tasks import epitome, erc, lexicon, reccon
from hen_jax.measures.tasks.erc_files import read_erc
from hen_jax.measures.tasks.reccon_scores import (
    SpanValues,
    lcs_f1,
    none_f1,
    normalise,
    read_span,
    span_values,
    squad_f1,
)
from hen_jax.text.conversation import Message


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def counted(**counts: int) -> list[str]:
    return [label.replace("_", " ") for label, count in counts.items() for _ in range(count)]


def labelled(truth: list[str], guess: list[str | None], labels: tuple[str, ...]) -> list[Choice]:
    """What was chosen of items with those labels; a guess that is none of them is no answer."""
    return [
        Choice(
            ChoiceItem(str(at), str(at), "x", (Message("user", "?"),), labels, labels.index(one)),
            labels.index(said) if said in labels else None,
        )
        for at, (one, said) in enumerate(zip(truth, guess, strict=True))
    ]


def figures_of(lines) -> dict[str, float]:
    found = [measured("s", "a", line, Drawing(draws=20)) for line in lines]
    return {one.measure: one.value for one in found if one.value is not None}


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_scikit_learns(seed):
    draw = random.Random(seed)
    labels = ("a", "b", "c", "d", "never")
    truth = draw.choices(labels[:4], weights=[6, 3, 2, 1], k=97)
    guess = [draw.choice([one, "a", "b", "elsewhere"]) for one in truth]
    choices = labelled(truth, guess, labels)

    def ours(kinds, leave_out=()):
        return figures_of(f1_figures(choices, "g", kinds, leave_out))

    def theirs(average, among=labels):
        return 100 * f1_score(truth, guess, labels=among, average=average, zero_division=0)

    every, without = ours(("macro", "weighted", "micro")), ours(("macro", "micro"), ("a",))
    for kind in ("macro", "weighted", "micro"):
        assert every[f"{kind}_f1"] == pytest.approx(theirs(kind), abs=1e-9)
    for kind in ("macro", "micro"):
        assert without[f"{kind}_f1"] == pytest.approx(theirs(kind, labels[1:]), abs=1e-9)
    right = figures_of(accuracies(choices, "chat", lambda one: "g"))
    assert right["accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    assert right["unread"] == pytest.approx(guess.count("elsewhere") / 97)


def floor_of(labels: tuple[str, ...], **counts: int) -> dict[str, float]:
    """What always answering the commonest label gives, from how often each is true."""
    truth = counted(**counts)
    lines = majority_floor(context(), labelled(truth, [None] * len(truth), labels), "g")
    found = figures_of(lines)
    return {name.removeprefix("control_majority_"): value for name, value in found.items()}


def test_majorities_are_the_published_ones():
    labels = {name: one.labels for name, one in erc.LABEL_SETS.items()}
    meld = floor_of(labels["meld"], neutral=1256, joy=402, anger=345, surprise=281, sadness=208,
                    disgust=68, fear=50)  # fmt: skip
    assert meld["weighted_f1"] == pytest.approx(31.27, abs=0.005)
    assert 100 * meld["accuracy"] == pytest.approx(48.12, abs=0.005)
    emory = floor_of(labels["emorynlp"], Neutral=349, Mad=341, Joyful=338, Scared=300)
    assert 100 * emory["accuracy"] == pytest.approx(26.28, abs=0.005)
    assert emory["weighted_f1"] == pytest.approx(10.94, abs=0.005)
    for counts, accuracy, macro in (
        ((2037, 895, 152), 66.1, 26.5),
        ((1626, 114, 1344), 52.7, 23.0),
        ((2604, 104, 376), 84.4, 30.5),
    ):
        found = floor_of(epitome.LEVELS, **dict(zip(epitome.LEVELS, counts, strict=True)))
        assert 100 * found["accuracy"] == pytest.approx(accuracy, abs=0.06)
        assert found["macro_f1"] == pytest.approx(macro, abs=0.06)
    cause = floor_of(("no", "yes"), yes=1894, no=5330)  # RECCON, DailyDialog's first fold
    assert cause["macro_f1"] == pytest.approx(42.46, abs=0.005)
    assert 100 * cause["accuracy"] == pytest.approx(73.78, abs=0.005)
    negative = f1_figures(
        labelled(counted(yes=1894, no=5330), ["no"] * 7224, ("no", "yes")),
        "g",
        ("macro",),
        ("yes",),
    )
    assert figures_of(negative)["macro_f1"] == pytest.approx(84.91, abs=0.005)
    iemocap = floor_of(("no", "yes"), yes=1080, no=11305)
    assert 100 * iemocap["accuracy"] == pytest.approx(91.28, abs=0.005)
    assert iemocap["macro_f1"] == pytest.approx(47.72, abs=0.005)


def test_an_alias_is_its_label_and_a_strange_word_is_wrong():
    assert erc.mapped("Joyful", "meld") == "joy"
    assert erc.mapped("sad", "meld") == "sadness"
    assert erc.mapped("angry", "meld") == "anger"
    assert erc.mapped("joy", "emorynlp") == "Joyful"
    assert erc.mapped("hap", "iemocap") == "happy"
    assert erc.mapped("happiness", "dailydialog") == "happiness"
    assert erc.mapped("jealous", "meld") is None
    with pytest.raises(InputError, match="label set 'melt'; allowed: meld"):
        erc.mapped("joy", "melt")


def test_erc_files(tmp_path):
    meld = write(
        tmp_path / "meld.csv",
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
        '1,"Well, hello.",Ada,joy,positive,0,0\n2,Go away.,Bo,anger,negative,0,1\n'
        "3,Rain.,Ada,neutral,neutral,1,0\n",
    )
    found = read_erc(meld, "meld")
    assert [one.emotion for one in found] == ["joy", "anger", "neutral"]
    items = erc.erc_items(found, "meld")
    assert [item.group for item in items] == ["0", "0", "1"]
    assert "Ada: Well, hello.\nBo: Go away." in items[1].messages[0].content
    assert "Go away" not in items[2].messages[0].content
    assert items[1].options[items[1].answer] == "anger"
    write(meld, meld.read_text().replace("anger", "boredom"))
    with pytest.raises(InputError, match=r"meld\.csv:3:emotion: 'boredom' is no label of meld"):
        read_erc(meld, "meld")

    scenes = {"scenes": [{"utterances": [{"utterance_id": "s1_e1_c1_u1", "speakers": ["Ada"],
              "transcript": "Hm.", "emotion": "Mad"}]}]}  # fmt: skip
    emory = write(tmp_path / "emory.json", json.dumps({"episodes": [scenes]}))
    assert read_erc(emory, "emorynlp") == [erc.Utterance("s1_e1_c1", "Ada", "Hm.", "Mad")]

    daily = write(tmp_path / "dialogues_test.txt", "Hi . __eou__ Oh no ! __eou__\n")
    write(tmp_path / "dialogues_emotion_test.txt", "0 3\n")
    assert [one.emotion for one in read_erc(daily, "dailydialog")] == ["no emotion", "fear"]
    write(tmp_path / "dialogues_emotion_test.txt", "0\n")
    with pytest.raises(InputError, match="2 utterances and 1 labels"):
        read_erc(daily, "dailydialog")


def test_squad_normal_form():
    assert normalise("The  Cat, a dog!") == "cat dog"
    assert squad_f1("the cat", "Cat.") == 1.0
    assert squad_f1("cat dog", "cat") == pytest.approx(2 / 3)
    assert (squad_f1("", ""), squad_f1("cat", "")) == (1.0, 0.0)
    assert lcs_f1("he lost his keys", "lost his") == pytest.approx(2 * 0.5 / 1.5)
    assert lcs_f1("lost his", "he lost his keys") == pytest.approx(2 * 0.5 / 1.5)


def spans_of(predicted: list[str]) -> dict[str, float]:
    """The suite's figures of these answers: two questions with a cause, two without."""
    truth = ["he lost his keys", "rain", "", ""]
    rows = [span_values(*pair) for pair in zip(truth, predicted, strict=True)]
    sums = np.asarray([[not t and not p, not t, not p]
                       for t, p in zip(truth, predicted, strict=True)], float).sum(0)  # fmt: skip
    found = {name: 100 * float(np.mean([row[at] for row in rows[:2]]))
             for at, name in enumerate(SpanValues._fields)}  # fmt: skip
    return found | {"all": 100 * float(np.mean([row.lcs_f1 for row in rows])),
                    "none": float(none_f1(sums))}  # fmt: skip


def test_spans():
    assert spans_of(["he lost his keys", "rain", "", ""]) == {
        "exact": 100, "partial": 0, "lcs_f1": 100, "squad_f1": 100, "all": 100, "none": 100,
    }  # fmt: skip
    none = spans_of([""] * 4)
    assert (none["lcs_f1"], none["squad_f1"], none["exact"], none["partial"]) == (0, 0, 0, 0)
    assert none["none"] == pytest.approx(100 * 2 * 2 / 6)
    part = spans_of(["lost his", "snow", "", "wind"])
    assert (part["exact"], part["partial"]) == (0, 50)
    assert part["lcs_f1"] == pytest.approx(100 * (2 / 3) / 2)
    assert part["none"] == pytest.approx(100 * 2 / 3)
    assert part["all"] == pytest.approx(100 * (2 / 3 + 0 + 1 + 0) / 4)
    read = {
        '"lost his"\nBecause': "lost his",
        "None.": "",
        "": "",
        "no cause": "",
        "Nobody": "Nobody",
    }
    assert {text: read_span(text) for text in read} == read


@pytest.mark.parametrize(
    ("truth", "predicted", "values"),
    [
        ("I lost my dog", "i lost my dog", (0, 0)),  # case counts
        ("I lost my dog", "lost MY", (0, 0)),
        ("lost my dog", " lost my dog\n", (1, 0)),
        ("lost my dog today", " lost my dog ", (0, 1)),  # blanks at the ends do not
        (" my dog ", "lost my dog", (0, 1)),
        ("lost my dog", " ", (0, 0)),
    ],
)
def test_spans_are_similar_as_in_the_published_lists(truth, predicted, values):
    found = span_values(truth, predicted)
    assert (found.exact, found.partial) == values
    assert (found.lcs_f1 > 0) == (found.squad_f1 > 0) == any(values)


@pytest.mark.parametrize(
    ("read", "data", "what"),
    [
        (reccon.read_annotation, {}, "no turn in this file"),
        (reccon.read_annotation, {"d": [[]]}, "no turn in this file"),
        (
            reccon.read_annotation,
            {"d": [[{"turn": "x", "speaker": "A", "utterance": "I", "emotion": "happy"}]]},
            "no annotation of RECCON .ValueError: .*'x'",
        ),
        (reccon.read_spans, {}, "no question in this file"),
        (reccon.read_spans, [], "no question in this file"),
        (reccon.read_spans, [{"context": "x", "qas": []}], "no question in this file"),
    ],
)
def test_files_of_reccon_without_content_are_refused(tmp_path, read, data, what):
    with pytest.raises(InputError, match=rf"r\.json: .*{what}"):
        read(write(tmp_path / "r.json", json.dumps(data)))


def test_reccon_files(tmp_path):
    turn = {"turn": 1, "speaker": "A", "utterance": "I won!", "emotion": "happines",
            "expanded emotion cause evidence": [1, "b"], "expanded emotion cause span": ["won"],
            "type": ["no-context"]}  # fmt: skip
    path = write(tmp_path / "a.json", json.dumps({"d1": [[turn]]}))
    [one] = reccon.read_annotation(path)["d1"]
    assert (one.emotion, one.causes, one.background, one.spans) == (
        "happiness",
        (1,),
        True,
        ("won",),
    )
    question = {"id": "q", "question": "Why?", "is_impossible": True, "answers": []}
    path = write(tmp_path / "b.json", json.dumps([{"context": "I won!", "qas": [question]}]))
    assert reccon.read_spans(path) == [reccon.SpanQuestion("q", "I won!", "Why?", "")]
    path = write(
        tmp_path / "c.csv",
        ",text,labels,id\n0,joy <SEP> I won! <SEP> I won!,1,x_utt_1_true_cause_utt_1_span_0\n"
        "1,joy <SEP> I won! <SEP> Hello.,0,x_utt_1_impossible_cause_utt_0\n",
    )
    items = reccon.cause_items(reccon.read_entailments(path))
    assert [item.options[item.answer] for item in items] == ["yes", "no"]
    assert [item.group for item in items] == ["x_utt_1", "x_utt_1"]
    write(path, ",text,labels,id\n0,joy <SEP> I won!,1,x\n")
    with pytest.raises(InputError, match=r"c\.csv:2:text: 2 parts"):
        reccon.read_entailments(path)


def test_epitome(tmp_path):
    path = write(
        tmp_path / "er.csv",
        "sp_id,rp_id,seeker_post,response_post,level,rationales\n"
        's1,r1,I am lost.,"Oh, I am sorry. Go on.",2,"I am sorry|Go on"\ns1,r2,I am lost.,Ok.,0,\n',
    )
    pairs = epitome.read_epitome(path)
    first = pairs[0]
    assert [first.response[a:b] for a, b in first.spans] == ["I am sorry", "Go on"]
    items = epitome.epitome_items(pairs, "ER")
    assert [item.answer for item in items] == [2, 0]
    assert items[0].group == items[1].group == "s1"
    for pair in pairs:
        assert epitome.rationale_values(pair.response, pair.spans, pair.spans) == (1, 1)
    half = epitome.rationale_values("one two three four", [(0, 7)], [(0, 13)])
    assert half == (pytest.approx(2 * 2 / 5), 1)  # 2 tokens shared of 2 and 3; 7 of 13 characters
    assert epitome.rationale_values("one two three", [(0, 3)], [(0, 7)])[1] == 0  # 3 of 7
    assert epitome.rationale_values("one two", [(0, 3)], [(4, 7)]) == (0, 0)
    assert epitome.rationale_values("one two", [(0, 3)], []) == (0, 0)
    said = '- "i am sorry"\n2. Go on\nI am here'
    assert epitome.quoted_spans(said, first.response) == first.spans
    assert epitome.quoted_spans("none", first.response) == ()
    with pytest.raises(InputError, match="mechanism 'XX'; allowed: ER, IP, EX"):
        epitome.epitome_items(pairs, "XX")


@pytest.mark.parametrize(
    ("reply", "response", "quoted"),
    [
        ("none", "Nonetheless, I see.", []),
        ("None.", "I have none.", []),
        ('- "none"', "I have none.", []),
        ("I see", "Nobody: I seem blind. I see.", ["I see"]),
        ("there", "Therefore go there!", ["there"]),
        ("sorry!", "So sorry! Go.", ["sorry!"]),
        (
            "none of it is yours\ngo on",
            "None of it is yours. Go on",
            ["None of it is yours", "Go on"],
        ),
    ],
)
def test_quotations_stand_from_word_to_word(reply, response, quoted):
    assert [response[a:b] for a, b in epitome.quoted_spans(reply, response)] == quoted


def test_lexicon(tmp_path):
    rows = [("gloom", "sadness", 1), ("gloom", "negative", 1), ("gloom", "joy", 0),
            ("sunny", "joy", 1), ("table", "joy", 0)]  # fmt: skip
    path = write(tmp_path / "words.tsv", "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))
    words = lexicon.read_word_list(path)
    found = dict(
        zip(lexicon.CATEGORIES, lexicon.profile("Gloom, gloom; sunny.", words), strict=True)
    )
    assert (found["sadness"], found["negative"], found["joy"], found["trust"]) == (2, 2, 1, 0)
    assert lexicon.profile("it isn't sunny", words, window=2).sum() == 0
    assert lexicon.profile("it isn't sunny", words).sum() == 1
    assert lexicon.density("gloom today", words).sum() == pytest.approx(100)
    assert lexicon.affect_cosine("gloom", "gloom gloom", words) == pytest.approx(1)
    assert lexicon.affect_cosine("gloom", "sunny", words) == 0
    assert np.isnan(lexicon.affect_cosine("gloom", "stone", words))
    assert lexicon.coverage(["a gloom table stone"], words) == 0.5
    with pytest.raises(InputError, match="may not be given on: get it from saifmohammad"):
        lexicon.read_word_list(None)
    with pytest.raises(InputError, match=r"words\.tsv:1: 'gloom joy 1'"):
        lexicon.read_word_list(write(path, "gloom joy 1\n"))


def test_empathetic_dialogues(tmp_path):
    header = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
    path = write(
        tmp_path / "test.csv",
        header + "hit:1_conv:2,2,sentimental,Old house,1,Which one_comma_ dear?,5|5|5_5|5|5,\n"
        "hit:1_conv:2,1,sentimental,Old house,0,I saw it again.,5|5|5_5|5|5,\n"
        "hit:9_conv:9,1,sad,Lost,0,too few\n",
    )
    parsed = check_empathetic_dialogues(path)
    assert len(parsed.problems) == 1
    [item] = ed.emotion_items(parsed.records)
    assert "Speaker: I saw it again.\nListener: Which one, dear?" in item.messages[0].content
    assert item.options[item.answer] == "sentimental"
    [(context, reply)] = ed.listener_turns(parsed.records[0])
    assert (len(context), reply) == (1, "Which one, dear?")
    assert len(set(ed.ED_EMOTIONS)) == 32


def test_diversity_counts_the_last_gram():
    found = ed.distinct_diversity(["a b", "a b c", "a b"])
    assert found["distinct_1"] == pytest.approx(100 * 3 / 7)
    assert found["distinct_2"] == pytest.approx(100 * 2 / 4)
    assert found["unique"] == pytest.approx(100 * 2 / 3)


def test_letters_are_read_strictly():
    good = {"B": 1, "(b)": 1, "**B**": 1, "B. She is proud": 1, "Answer: B": 1, "答案是B": 1,
            "The answer is C.": 2, "选A。": 0, "a": 0, "C) I see": 2}  # fmt: skip
    assert {text: read_letter(text, 4) for text in good} == good
    for text in ("Both", "A or B", "A friend would", "B) or C)", "E", "", "I think so", "好"):
        assert read_letter(text, 4) is None, text


def test_labels_are_read_strictly():
    labels = ("joy", "anger", "no emotion")
    assert read_label(" Joy.\nBecause she won.", labels) == "joy"
    assert read_label("She feels joy here", labels) == "joy"
    assert read_label("joy or anger", labels) is None
    assert read_label("enjoyable", labels) is None
    assert read_label("Happy!", labels, {"happy": "joy"}) == "joy"
    assert read_label("他很高兴", ("高兴", "难过")) == "高兴"
    assert read_label("他不高兴。", ("高兴", "不高兴")) == "不高兴"  # hides the shorter one in it
    assert read_label("不高兴，也高兴", ("高兴", "不高兴")) is None
    assert read_label("It is no emotion.", ("emotion", "no emotion")) == "no emotion"


def item(name: str = "1", answer: int = 2) -> ChoiceItem:
    return ChoiceItem(name, "g", "x", (Message("user", "Who?"),), ("ann", "bo", "cy"), answer)


def test_an_item_is_asked_in_its_own_order():
    items = [item(str(at)) for at in range(40)]

    found = in_words(context(lambda one: "B"), items)
    assert all(one.chosen == one.shown[1] for one in found)
    assert 4 <= sum(one.right for one in found) <= 24  # a liking for B is right a third of the time
    order = shown_order(items[0])
    assert f"A. {items[0].options[order[0]]}" in question(items[0], order)[0].content
    with pytest.raises(InputError, match="answer 3 of 3"):
        item(answer=3)


def test_the_likeliest_option():
    def likelihood(asked):
        table = {"ann": (-4.0, 1), "bo": (-6.0, 3), "cy": (-5.0, 2)}
        found = []
        for turns, replies in asked:
            less = 0.0 if turns == NOTHING else -1.0
            sums = [table[one][0] + less * (one == "ann") for one in replies]
            found.append(LogProbs(np.asarray(sums), np.asarray([table[one][1] for one in replies])))
        return found

    def first(by):
        return likeliest([item()], likelihood, by)[0].chosen

    assert first("sum") == 0  # -5, -6, -5: of equal ones the first
    assert first("token") == 1  # -5, -2, -2.5
    assert first("character") == 0  # -5/3, -3, -5/2
    assert first("ratio") == 1  # -1, 0, 0
    one = LogProbs(np.asarray([-1.0, -3.0]), np.ones(2))
    other = LogProbs(np.asarray([-2.0, -2.5]), np.ones(2))
    assert interaction(one, other) == pytest.approx(-1 - 2.5 + 2 + 3)


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ("0\n", "2 dialogues, but 1 lines in dialogues_emotion_test.txt; give both files whole"),
        ("0\n1\n2\n", "2 dialogues, but 3 lines in dialogues_emotion_test.txt"),
        ("0\n12\n", r"dialogues_test\.txt:2: 1 utterances and 1 labels from 0 to 6; mend it"),
        ("7\n1\n", r"dialogues_test\.txt:1: 1 utterances and 1 labels from 0 to 6"),
    ],
)
def test_labels_that_do_not_fit_their_dialogues_are_refused(tmp_path, labels, what):
    daily = write(tmp_path / "dialogues_test.txt", "Hi . __eou__\nOh no ! __eou__\n")
    write(tmp_path / "dialogues_emotion_test.txt", labels)
    with pytest.raises(InputError, match=what):
        read_erc(daily, "dailydialog")

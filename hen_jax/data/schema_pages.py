"""What each schema reads, for people: its columns and one example that it takes.

`hen data schemas` writes `docs/data.md` of this and of the tables that the readers themselves use.
"""

import dataclasses
from collections.abc import Mapping

from hen_jax.data.esconv import STRATEGIES
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.empathy.labels import EMOTIONS, PERSONALITIES, ROLE_WORDS, TASKS
from hen_jax.empathy.scales import PERCEIVED


@dataclasses.dataclass(frozen=True)
class Page:
    """A schema in words."""

    about: str
    columns: Mapping[str, str]  # name -> what it holds; "?" at the end of a name: may be left out
    example: str  # a whole file
    suffix: str = ".jsonl"

    def names(self) -> frozenset[str]:
        """The columns without the mark of those that may be left out."""
        return frozenset(name.removesuffix("?") for name in self.columns)


_NAMED = {
    "id?": "name of the record; without it, its file and line",
    "group?": "records of a group stay in one part (train, valid, test); without it, "
    "what the user says first",
}
_HEAD = {
    "system?": "the system turn",
    "history?": 'earlier turns: `[["asked", "replied"], ...]`, or a list of messages',
}
_MESSAGES = {
    "messages": "list of turns, `role` and `content` (or `from` and `value`); `conversations` "
    "is another name for it",
    "conversations?": "the same, as ShareGPT calls it",
    "system?": "the system turn, where the list has none",
}
_SAID = {
    "prompt": "a text, or a list of messages; `messages` or `conversations` in place of both",
    "completion": "a text, or a list of messages; Alpaca's `instruction`, `input`, `output` are "
    "read in place of both",
    **{f"{name}?": "see prompt" for name in ("messages", "conversations")},
    **{f"{name}?": "see completion" for name in ("instruction", "input", "output")},
    **_HEAD,
}


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


PAGES: Mapping[str, Page] = {
    "messages": Page(
        "Conversations in the form of OpenAI and TRL.",
        _MESSAGES | _NAMED,
        '{"messages": [{"role": "system", "content": "Answer shortly."}, {"role": "user", '
        '"content": "I missed the last bus."}, {"role": "assistant", "content": "Where are you? '
        'I can come."}]}\n'
        '{"messages": [{"role": "user", "content": "He did not call."}, {"role": "assistant", '
        '"content": "Sorry?", "train": false}, {"role": "user", "content": "Dad. On my '
        'birthday."}, {"role": "assistant", "content": "You waited all day for it."}]}\n',
    ),
    "sharegpt": Page(
        "Conversations in the form of ShareGPT and LLaMA-Factory.",
        _MESSAGES | _NAMED,
        '{"system": "Answer as a night nurse.", "conversations": [{"from": "human", "value": "I '
        'cannot sleep."}, {"from": "gpt", "value": "I will sit with you a while."}]}\n',
    ),
    "smilechat": Page(
        "Conversations between client and counselor. A file may be one dialogue: a JSON array of "
        "its turns.",
        _MESSAGES | _NAMED,
        '[{"role": "client", "content": "我最近总是睡不着。"}, {"role": "counselor", "content": '
        '"从什么时候开始的呢？"}]\n',
        ".json",
    ),
    "completion": Page(
        "A prompt and what is to follow it.",
        {
            "prompt": "a text, which the user says, or a list of messages",
            "completion": "a text, which the assistant says, or a list of messages",
            **_HEAD,
            **_NAMED,
        },
        'prompt,completion\nI got the job!,"You did it. Tell me everything, from the start."\n',
        ".csv",
    ),
    "alpaca": Page(
        "Instructions in the form of Alpaca and LLaMA-Factory.",
        {
            "instruction": "what the user asks",
            "input?": "what the user gives, on a line below",
            "output": "the reply",
            **_HEAD,
            **_NAMED,
        },
        '[{"instruction": "Say it more kindly.", "input": "You are late again.", "output": "I was '
        'worried. Is everything all right?"}]\n',
        ".json",
    ),
    "preference": Page(
        "Two ways to go on, the better first.",
        {
            "prompt?": "a text or a list of messages; without it, what both sides begin with (texts"
            " then mark their turns with `Human:` and `Assistant:`)",
            "chosen": "the better reply: a text, a message or a list of messages",
            "rejected": "the other one",
            "share?": "share of the people asked who preferred `chosen`, from 0 to 1; without it, "
            "all who did not call it a tie",
            "tie?": "share of those who preferred neither; without it, 0",
            "margin?": "by how much the better one's score should lead, from 0; without it, 0",
            "turn_weights?": "where a policy is trained, what each reply after the prompt counts "
            "for: a list of numbers; without it, 1 each",
            "messages?": "in place of prompt",
            "conversations?": "in place of prompt",
            "instruction?": "in place of prompt",
            "input?": "with instruction",
            **_HEAD,
            **_NAMED,
        },
        '{"prompt": "Nobody came to my party.", "chosen": "That is a lonely kitchen to stand in.", '
        '"rejected": "Invite more people next time.", "share": 0.75, "tie": 0.25}\n',
    ),
    "label": Page(
        "Conversations marked good or bad.",
        {"label": "true or false, 1 or 0; `kto_tag` is another name for it", "kto_tag?": "the same"}
        | _SAID
        | _NAMED,
        '{"prompt": "I failed.", "completion": "Which part hurt most?", "label": true}\n'
        '{"prompt": "I failed.", "completion": "Try harder.", "label": false}\n',
    ),
    "candidates": Page(
        "Several replies to one context, each helpful or not, and the one that was really given.",
        {
            "prompt": "a text, or a list of messages; `messages` or `conversations` in its place",
            "gold": "the reply that was given",
            "candidates": "a list of texts",
            "helpful": "a list as long: 1, 0, or null where it is not known",
            "messages?": "in place of prompt",
            "conversations?": "in place of prompt",
            **_HEAD,
            **_NAMED,
        },
        '{"prompt": "I failed.", "gold": "Which part hurt most?", "candidates": ["Try harder.", '
        '"That one hurts."], "helpful": [0, 1]}\n',
    ),
    "rating": Page(
        "Conversations with a rating of their empathy.",
        {"rating": f"a number from {PERCEIVED.low:g} to {PERCEIVED.high:g}"} | _SAID | _NAMED,
        "prompt;completion;rating\nI failed.;Which part hurt most?;4.5\n",
        ".csv",
    ),
    "hed": Page(
        "High-context empathetic replies under given conditions. Unknown columns are refused.",
        {
            "id": "name of the record",
            "statement_id?": "the group; without it, the statement",
            "task": f"which conditions are given: {_listed(TASKS)}",
            "lang": "`en` or `zh`",
            "emotion": f"the speaker's: {_listed(EMOTIONS)}",
            "role?": f"where the task gives it, the responder's: {_listed(ROLE_WORDS)}",
            "personality?": f"where the task gives it, the responder's: {_listed(PERSONALITIES)}",
            "statement": "what the speaker says",
            "response": "the reply",
            "rejected?": "worse replies: a list of `kind` and `text`",
            "history?": "earlier turns: a list of `role` and `content`",
            "traits?": "Big Five in place of the personality: an object of `high` or `low`",
            "age?": "the responder's",
            "gender?": "the responder's",
            "scene?": "where the two talk",
        },
        '{"id": "1", "task": "SER", "lang": "en", "emotion": "sad", "statement": "The dog is '
        'gone.", "response": "His bowl still by the door. Come, we walk his round."}\n',
    ),
    "steered": Page(
        "Conversations with a better and a worse branch in one of four contexts. Unknown columns "
        "are refused.",
        {
            "id": "name of the record",
            "cluster": f"the context: {_listed(CONTEXTS)}",
            "task": "one of the context's tasks",
            "persona": "object of `age_band`, `occupation`, `temperament`, `need`",
            "target_level": "the empathy wanted, 0 to 1",
            "turns": "list of `user`, `chosen`, `rejected`",
            "fault?": "what is wrong with the rejected branch",
        },
        '{"id": "1", "cluster": "career", "task": "work_issue", "persona": {"age_band": "30-39", '
        '"occupation": "baker", "temperament": "calm", "need": "a plan"}, "target_level": 0.6, '
        '"turns": [{"user": "They cut my hours.", "chosen": "Without a word before? What does your '
        'contract say?", "rejected": "That is life."}]}\n',
    ),
    "crossed": Page(
        "Two prompts that differ in one thing and two replies, each right under one of them. "
        "Unknown columns are refused.",
        {
            "id": "name of the record",
            "crossing": "what the prompts differ in",
            "lang": "`en` or `zh`",
            "context": f"one of {_listed(CONTEXTS)}",
            "history": "earlier turns for each prompt",
            "user": "what the user says last",
            "conditions": "what holds for each prompt",
            "replies": "the reply that is right under each",
        },
        '{"id": "1", "crossing": "level", "lang": "en", "context": "distress", "history": [[], '
        '[]], "user": "The boiler is out again.", "conditions": [{"desired_level": 1, "wish": '
        '"wants the steps and no fuss"}, {"desired_level": 3, "wish": "wants to be looked after '
        'first"}], "replies": ["Hold reset for five seconds, then open the grey tap.", "Leave it. '
        'The bath is running here."]}\n',
    ),
    "esconv": Page(
        "Emotional support conversations of ESConv, as published, with the failed ones, and as on "
        "the hub.",
        {
            "dialog": "list of turns: `speaker`, `content` (or `text`), and `strategy`, of its own "
            f"or in `annotation`: {_listed(dict.fromkeys(STRATEGIES))}",
            "emotion_type": "the seeker's emotion",
            "problem_type": "what it is about",
            "situation": "the seeker's words for it; the group",
            "id?": _NAMED["id?"],
        },
        '[{"emotion_type": "anxiety", "problem_type": "job crisis", "situation": "I may lose my '
        'job.", "dialog": [{"speaker": "seeker", "annotation": {}, "content": "They let people '
        'go."}, {"speaker": "supporter", "annotation": {"strategy": "Question"}, "content": "Did '
        'they say who is next?"}]}]\n',
        ".json",
    ),
    "empathetic_dialogues": Page(
        "The files of the official archive of EmpatheticDialogues, with its header and `_comma_`.",
        {
            "conv_id": "the dialogue",
            "utterance_idx": "the place in it, from 1",
            "context": "the emotion",
            "prompt": "the situation; the group",
            "speaker_idx": "who speaks",
            "utterance": "the words",
            "selfeval": "ratings",
            "tags": "may be empty",
        },
        "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
        "hit:1_conv:2,1,proud,My son walked.,1,He took three steps_comma_ alone!,5|5|5_5|5|5,\n"
        "hit:1_conv:2,2,proud,My son walked.,2,Straight to you_comma_ I bet.,5|5|5_5|5|5,\n",
        ".csv",
    ),
    "cped": Page(
        "The CSV files of CPED; each answer to a statement is one `hed` record.",
        {
            "TV_ID?": "not read",
            "Dialogue_ID": "the group",
            "Utterance_ID": "the place",
            "Speaker": "who speaks",
            "Gender": "of the speaker",
            "Age": "of the speaker",
            "Neuroticism": "`high`, `low` or `unknown`, as the four that follow",
            "Extraversion": "",
            "Openness": "",
            "Agreeableness": "",
            "Conscientiousness": "",
            "Scene": "where they talk",
            "Emotion": "of the utterance",
            "Utterance": "the words",
        },
        "TV_ID,Dialogue_ID,Utterance_ID,Speaker,Gender,Age,Neuroticism,Extraversion,Openness,"
        "Agreeableness,Conscientiousness,Scene,Emotion,Utterance\n"
        "1,1_0,1_0_0,甲,female,young,low,high,high,high,low,car,worried,车坏了\n"
        "1,1_0,1_0_1,乙,female,young,low,high,high,high,low,car,neutral,我来推\n",
        ".csv",
    ),
    "sense7": Page(
        "Conversations whose users rated each reply: a workbook with the sheets Tasks and Messages "
        "(SENSE-7), or JSON lines of the same rows.",
        {
            "task": "`TaskId`, `PID` (the group), `Model`, `PreTaskChoice`, "
            "`PreTaskDesiredEmpathy` (1 to 3), and the ratings before and after",
            "messages": "list of `Role` (`user`, `assistant`, `error`), `Content`, `Retry` and a "
            "rating for each dimension (1 to 5, or `very good` ... `very poor`, `unknown`)",
        },
        '{"task": {"TaskId": "T1", "PID": "P1", "Model": "m", "PreTaskChoice": "Work issue", '
        '"PreTaskDesiredEmpathy": 2}, "messages": [{"Role": "user", "Content": "They cut my '
        'hours."}, {"Role": "assistant", "Content": "Without a word before?", "Affective": "very '
        'good"}]}\n',
    ),
}
"""Schema -> its page."""

"""Data files in the shapes that other toolkits document, with words of our own.

In each of them somebody says ASKED and is told TOLD.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

ASKED, TOLD, WORSE = "I missed the last bus.", "Where are you? I can come.", "Buses leave."
EARLIER = ("Hello.", "Hello, what is it?")
SYSTEM = "Answer shortly."


class PublicFile(NamedTuple):
    """A file: how it ends, what stands in it, and how it is opened."""

    rows: Any  # rows of JSON lines; or the text
    schema: str = "messages"
    suffix: str = ".jsonl"
    columns: Mapping[str, str] = {}

    @property
    def text(self) -> str:
        """What stands in it."""
        if isinstance(self.rows, str):
            return self.rows
        if self.suffix == ".json":
            return json.dumps(self.rows, indent=2, ensure_ascii=False)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)


def _said(who: str = "role", what: str = "content", names=("user", "assistant"), *more: str):
    texts = [*more, ASKED, TOLD]
    return [{who: names[at % 2], what: text} for at, text in enumerate(texts)]


CHAT = _said()
LONG = [
    {"role": "system", "content": SYSTEM},
    *_said("role", "content", ("user", "assistant"), *EARLIER),
]
FROM = _said("from", "value", ("human", "gpt"))
ALPACA = {"instruction": ASKED, "input": "", "output": TOLD}
PAIR = {"prompt": ASKED, "chosen": TOLD, "rejected": WORSE}
BAD = {"role": "assistant", "content": WORSE}

READ = {
    "trl, conversations": PublicFile([{"messages": CHAT}]),
    "trl, prompt and completion": PublicFile([{"prompt": ASKED, "completion": TOLD}], "completion"),
    "trl, conversational completion": PublicFile(
        [{"prompt": CHAT[:1], "completion": CHAT[1:]}], "completion"
    ),
    "trl, preference": PublicFile([PAIR], "preference"),
    "trl, conversational preference": PublicFile(
        [{"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": [BAD]}], "preference"
    ),
    "trl, implicit prompt": PublicFile(
        [{"chosen": CHAT, "rejected": [CHAT[0], BAD]}], "preference"
    ),
    "trl, unpaired": PublicFile([{"prompt": ASKED, "completion": TOLD, "label": True}], "label"),
    "trl, conversational unpaired": PublicFile(
        [{"prompt": CHAT[:1], "completion": CHAT[1:], "label": True}], "label"
    ),
    "openai, fine-tuning": PublicFile([{"messages": LONG}]),
    "openai, weights": PublicFile([{"messages": [CHAT[0], CHAT[1] | {"weight": 1}]}]),
    "alpaca": PublicFile([ALPACA], "alpaca", ".json"),
    "alpaca, text": PublicFile(
        [ALPACA | {"text": f"### Instruction:\n{ASKED}"}], "alpaca", ".json"
    ),
    "llama-factory, alpaca": PublicFile(
        [ALPACA | {"system": SYSTEM, "history": [list(EARLIER)]}], "alpaca", ".json"
    ),
    "llama-factory, sharegpt": PublicFile(
        [{"conversations": FROM, "system": SYSTEM, "tools": ""}], "sharegpt", ".json"
    ),
    "llama-factory, preference": PublicFile(
        [{"instruction": ASKED, "input": "", "chosen": TOLD, "rejected": WORSE}], "preference",
        ".json", {"prompt": "instruction"},
    ),
    "llama-factory, openai": PublicFile([{"messages": LONG}], "messages", ".json"),
    "sharegpt": PublicFile([{"id": "x_0", "conversations": FROM}], "sharegpt", ".json"),
    "fastchat": PublicFile([{"id": "identity_0", "conversations": FROM}], "messages", ".json"),
    "axolotl, chat_template": PublicFile([{"messages": CHAT, "weight": None}]),
    "axolotl, sharegpt weights": PublicFile(
        [{"conversations": [FROM[0] | {"weight": 0}, FROM[1] | {"weight": 1}]}], "sharegpt"
    ),
    "swift, messages": PublicFile([{"messages": LONG}]),
    "swift, query and response": PublicFile(
        [{"query": ASKED, "response": TOLD, "history": [list(EARLIER)]}], "completion", ".jsonl",
        {"prompt": "query", "completion": "response"},
    ),
    "dolly": PublicFile(
        [{"instruction": ASKED, "context": "", "response": TOLD, "category": "open_qa"}], "alpaca",
        ".jsonl", {"input": "context", "output": "response"},
    ),
    "belle": PublicFile([ALPACA | {"instruction": ASKED}], "alpaca"),
    "hh-rlhf": PublicFile(
        [{"chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {TOLD}",
          "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {WORSE}"}], "preference",
    ),
    "ultrafeedback, binarized": PublicFile(
        [{"prompt": ASKED, "prompt_id": "a1", "chosen": CHAT, "rejected": [CHAT[0], BAD],
          "messages": CHAT, "score_chosen": 8.0, "score_rejected": 4.0}], "preference",
    ),
    "ultrachat 200k": PublicFile([{"prompt": ASKED, "prompt_id": "a1", "messages": CHAT}]),
    "tulu": PublicFile([{"id": "t1", "messages": CHAT, "source": "org/data"}]),
    "deepspeed-chat": PublicFile([PAIR | {"response": TOLD}], "preference"),
    "orca pairs": PublicFile(
        [{"system": SYSTEM, "question": ASKED, "chosen": TOLD, "rejected": WORSE}], "preference",
        ".jsonl", {"prompt": "question"},
    ),
    "nemo, sharegpt": PublicFile(
        [{"system": SYSTEM, "mask": "User",
          "conversations": _said("from", "value", ("User", "Assistant"))}], "sharegpt",
    ),
    "lmsys": PublicFile([{"conversation_id": "c1", "model": "m", "conversation": CHAT, "turn": 1}],
                        "messages", ".jsonl", {"messages": "conversation"}),
    "smilechat": PublicFile(
        _said("role", "content", ("client", "counselor")), "smilechat", ".json"
    ),
    "together": PublicFile([{"prompt": ASKED, "completion": TOLD}], "completion"),
    "question and answer, csv": PublicFile(
        f'question,answer\n"{ASKED}","{TOLD}"\n', "completion", ".csv",
        {"prompt": "question", "completion": "answer"},
    ),
    "messages, tsv": PublicFile(
        "id\tmessages\n1\t" + json.dumps(CHAT) + "\n", "messages", ".tsv"
    ),
    "esconv": PublicFile(
        [{"experience_type": "Current Experience", "emotion_type": "anxiety",
          "problem_type": "job crisis", "situation": "Late.", "survey_score": {},
          "dialog": [{"speaker": "seeker", "annotation": {}, "content": ASKED},
                     {"speaker": "supporter", "annotation": {"strategy": "Question"},
                      "content": TOLD}]}], "esconv", ".json",
    ),
    "empatheticdialogues": PublicFile(
        "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
        f"hit:0_conv:1,1,sad,Late.,1,{ASKED},5|5|5_2|2|5,\n"
        f"hit:0_conv:1,2,sad,Late.,0,{TOLD},5|5|5_2|2|5,\n", "empathetic_dialogues", ".csv",
    ),
}  # fmt: skip
"""Each is read, and teaches to answer ASKED with TOLD."""

REFUSED = {
    "ultrachat": (PublicFile([{"id": "0", "data": [ASKED, TOLD]}]), "messages: missing"),
    "firefly": (
        PublicFile([{"conversation_id": 1, "conversation": [{"human": ASKED, "assistant": TOLD}]}]),
        "messages: missing",
    ),
    "xtuner": (
        PublicFile([{"conversation": [{"system": "", "input": ASKED, "output": TOLD}]}]),
        "messages: missing",
    ),
    "gemini": (
        PublicFile([{"contents": [{"role": "user", "parts": [{"text": ASKED}]},
                                  {"role": "model", "parts": [{"text": TOLD}]}]}]),
        "messages: missing",
    ),
    "axolotl, segments": (
        PublicFile([{"segments": [{"label": False, "text": ASKED},
                                  {"label": True, "text": TOLD}]}]),
        "segments: text without a chat format",
    ),
}  # fmt: skip
"""TRL's trainers find none of their columns in these either; and what we say of each."""

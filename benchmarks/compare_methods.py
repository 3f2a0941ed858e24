"""Several methods over the same conversations: all in one batch, against one after another.

    python benchmarks/compare_methods.py --model models/smollm2-135m --conversations 8

The peer answers call by call: each method, each conversation, each of its steps, as a script around
`hen generate` does. Both sides draw nothing (temperature 0) and must say the same.
"""

from pathlib import Path

import duel

METHODS = ("base", "system_prompt", "coe_cbt", "coe_rt", "ebg", "hef-model", "improve_weakest")


def chat_and_steps(task: dict):
    from hen_jax.methods.table import Parts, method_named
    from hen_jax.runs.chats import Answering, open_chat
    from hen_jax.verbs.generate.generate import GenerateRequest
    from hen_jax.verbs.methods.comparing import Comparing, read_method_items

    answering = Answering(max_new_tokens=task["new_tokens"])
    chat = open_chat(f"model:{task['model']}", answering)
    comparing = Comparing(
        GenerateRequest(model=Path(task["model"])),
        METHODS,
        Path("shipped:hed/hed.en.jsonl"),
        Path("unused"),
        schema="hed",
        bare=True,
        limit=task["conversations"],
    )
    items = read_method_items(comparing)
    methods = [method_named(name, Parts()) for name in METHODS]
    return chat, lambda: [method(item.messages) for method in methods for item in items]


def measured(task: dict, run) -> dict:
    chat, steps = chat_and_steps(task)
    run(steps(), chat)  # compiles
    found = []
    timed = duel.timed(lambda: found.append(run(steps(), chat)), task["repeats"])
    tokens = sum(one.tokens for one in found[-1])
    replies = [one.outcome.reply for one in found[-1]]
    return timed | {"amount": tokens, "tokens": tokens, "replies": replies}


def together(task: dict) -> dict:
    from hen_jax.methods.play import play

    return measured(task, play)


def one_by_one(task: dict) -> dict:
    from hen_jax.methods.play import play

    def alone(asked):
        return [reply for messages in asked for reply in chat_of[0]([messages])]

    chat_of = []

    def run(steps, chat):
        chat_of[:] = [chat]
        return [played for one in steps for played in play([one], alone)]

    return measured(task, run)


def compare() -> None:
    parser = duel.arguments(__doc__, rounds=1)
    parser.add_argument("--model", required=True)
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    given = ("model", "conversations", "new_tokens")
    task = {name: vars(options)[name] for name in given} | {"repeats": 1}
    sides = {name: duel.Side(name, task) for name in ("together", "one_by_one")}
    runs = duel.meet(sides, options.rounds)
    said = [[run.pop("replies") for run in of_side] for of_side in runs.values()]
    same = sum(one == other for one, other in zip(said[0][0], said[1][0], strict=True))
    print(f"{same} of {len(said[0][0])} replies are the same")
    duel.report(runs, "one_by_one", options.out, show=("tokens",))


if __name__ == "__main__":
    duel.main(compare, together, one_by_one)

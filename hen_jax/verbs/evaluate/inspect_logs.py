"""The results of an evaluation as logs that inspect-ai opens: EvalLog, version 2, as JSON.

One log for each suite and arm: a sample for each item with its prompt, reply and scores, and a
metric for each group of a measure, its interval in the metadata. Nothing of inspect-ai is needed
to write them; what has no value is left out of scores, as a NaN there would drop out of a mean
without a word, and is counted under `unscored_samples`.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.checksums import text_sha256
from hen_jax.core.files import write_json
from hen_jax.core.outputs import output_files
from hen_jax.evaluation.suite import Found, Item, Observed
from hen_jax.evaluation.suites.groups import by_id
from hen_jax.text.conversation import Reply

Replies = Mapping[str, Reply]


def write_logs(
    folder: Path,
    result: Mapping[str, Any],
    items: Sequence[Item],
    replies: Mapping[str, Replies],
    found: Mapping[str, Mapping[str, Sequence[Found]]],
    created: str,
) -> list[Path]:
    """Writes a log for each suite that measured something of an arm; their paths.

    inspect-ai lists only files whose names begin with a time, here `created`, in UTC as ISO 8601.

    Raises:
      InputError: one of the files is there and not what we wrote.
    """
    logs = {
        folder / _name(created, suite, arm): eval_log(
            result, suite, arm, items, replies[arm], own, created
        )
        for suite, by_arm in found.items()
        for arm, own in by_arm.items()
        if own
    }
    if logs:
        with output_files(*logs) as staged:
            for path, log in zip(staged, logs.values(), strict=True):
                write_json(path, log)
    return list(logs)


def now() -> str:
    """In UTC as ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _name(created: str, suite: str, arm: str) -> str:
    """`TIME_SUITE_ARM.json`; a bar below parts these three."""
    suite, arm = (part.replace("_", "-") for part in (suite, arm))
    return f"{created.replace(':', '-')}_{suite}_{arm}.json"


def eval_log(
    result: Mapping[str, Any],
    suite: str,
    arm: str,
    items: Sequence[Item],
    replies: Replies,
    found: Sequence[Found],
    created: str,
) -> dict[str, Any]:
    """One log; `created` is a time in UTC as ISO 8601."""
    scores, known = sample_scores(found), by_id(items)
    named = f"hen_jax/{arm}"
    samples = [_sample(one, known.get(one), replies.get(one), own, named)
               for one, own in scores.items()]  # fmt: skip
    identity = result["arms"][arm]
    decoding = identity["decoding"]
    run = text_sha256(f"{created} {identity['revision']}")[:22]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": run,
            "created": created,
            "task": suite,
            "task_id": text_sha256(f"{run} {suite} {arm}")[:22],
            "dataset": {"name": suite, "samples": len(samples), "sample_ids": list(scores)},
            "model": named,
            "config": {},
            "packages": result["versions"],
            "metadata": {name: result[name] for name in ("judge", "reward", "items", "intervals")}
            | {"back_end": identity["back_end"], "revision": identity["revision"]},
        },
        "plan": {
            "name": "plan",
            "steps": [],
            "config": {
                "max_tokens": decoding["max_new_tokens"],
                "temperature": decoding["temperature"],
                "top_p": decoding["top_p"],
                "seed": decoding["seed"],
            },
        },
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": list(_scores(result["figures"], suite, arm)),
        },
        "stats": {"started_at": created, "completed_at": created},
        "samples": samples,
    }


def sample_scores(found: Sequence[Found]) -> dict[str, dict[str, float]]:
    """What each item by itself gives to each measure, by its id; `{}` where it gives nothing."""
    scores: dict[str, dict[str, float]] = {}
    for one in found:
        if not isinstance(one, Observed) or one.group.endswith("/macro"):
            continue
        values = np.asarray(one.values, float)
        for name, row in zip(one.ids, values, strict=True):
            own = scores.setdefault(name, {})
            value = np.nan if np.isnan(row).any() else float((one.figure or np.asarray)(row))
            if np.isfinite(value):
                own[one.measure] = value
    return scores


def _sample(
    name: str, item: Item | None, reply: Reply | None, scores: Mapping[str, float], model: str
) -> dict[str, Any]:
    """An item with its reply; of a set that a suite brings only the name is known here."""
    said = [] if item is None else [
        {"role": message.role, "content": message.content} for message in item.prompt
    ]  # fmt: skip
    answer = [] if reply is None else [
        {"role": "assistant", "content": reply.text, "source": "generate", "model": model}
    ]  # fmt: skip
    choices = [
        {"message": one, "stop_reason": "stop" if reply is None or reply.stopped else "max_tokens"}
        for one in answer
    ]
    return {
        "id": name,
        "epoch": 1,
        "input": said or name,
        "target": (item.reference if item is not None else None) or "",
        "messages": [*said, *answer],
        "output": {"model": model, "choices": choices},
        "scores": {measure: {"value": value} for measure, value in scores.items()},
        "metadata": {} if item is None else {"cluster": item.cluster, **item.labels},
    }


def _scores(figures: Sequence[Mapping[str, Any]], suite: str, arm: str) -> Iterator[dict[str, Any]]:
    """A scorer for each measure, a metric for each of its groups; differences are no part of it."""
    own = [one for one in figures
           if one["suite"] == suite and one["arm"] == arm and not one["against"]]  # fmt: skip
    for measure in dict.fromkeys(one["measure"] for one in own):
        lines = [one for one in own if one["measure"] == measure]
        kept = ("low", "high", "n", "clusters", "missing", "seed", "judge", "prompt_hash", "about")
        metrics = {
            one["group"]: {
                "name": one["group"],
                "value": one["value"],
                "metadata": {name: one[name] for name in kept},
            }
            for one in lines
            if one["value"] is not None
        }
        yield {
            "name": measure,
            "scorer": measure,
            "scored_samples": max(one["n"] for one in lines),
            "unscored_samples": max(one["missing"] for one in lines),
            "metrics": metrics,
        }

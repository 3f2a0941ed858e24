"""What the replies of an arm cost, measured in a process of its own where the model is ours.

`python -m hen_jax.verbs.evaluate.cost` reads a JSON object of the arm and its prompts from the
standard input and prints one of what was measured as its last line.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.data.conversations import messages_field
from hen_jax.evaluation.suite import NotMeasuredError, Turns
from hen_jax.runs.chats import Answering, open_speaker
from hen_jax.text.conversation import message_row


def measure_cost(
    line: str, answering: Answering, prompts: Sequence[Turns], *, ours: bool
) -> dict[str, Any]:
    """Seconds and tokens of each reply, one after another; of all at once; and peak memory.

    Raises:
      InputError: the arm cannot be opened, or does not answer.
    """
    if not prompts:
        raise NotMeasuredError("no item to answer")
    if not ours:
        return timed(line, dataclasses.replace(answering, at_once=1), prompts)
    given = dataclasses.asdict(answering)
    asked = {
        "line": line,
        "answering": given | {"adapter": given["adapter"] and str(given["adapter"])},
        "prompts": [[message_row(message) for message in prompt] for prompt in prompts],
    }
    # Memory that this process holds on an accelerator is not asked for a second time.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "hen_jax.verbs.evaluate.cost"],
        input=json.dumps(asked), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise InputError(f"{line}: its cost could not be measured: {told[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(line: str, answering: Answering, prompts: Sequence[Turns]) -> dict[str, Any]:
    """The measurements, in this process; memory is that of all it did so far."""
    speaker, began = open_speaker(line, answering), time.perf_counter()
    chat = speaker(answering.seed)
    chat([prompts[0]])
    first = time.perf_counter() - began
    chat(prompts)  # so that what comes has been compiled
    seconds, tokens = [], []
    for prompt in prompts:
        began = time.perf_counter()
        (reply,) = chat([prompt])
        seconds.append(time.perf_counter() - began)
        tokens.append(reply.tokens)
    began = time.perf_counter()
    together = chat(prompts)
    rate = sum(one.tokens or 0 for one in together) / (time.perf_counter() - began)
    known = all(count is not None for count in tokens)
    return {
        "seconds": seconds,
        "tokens": tokens if known else [float("nan")] * len(tokens),
        "first_seconds": first,
        "together_tokens_per_second": rate if known else None,
    }


def _peaks() -> dict[str, float | None]:
    """Of this process, in MiB; None of devices that do not tell."""
    import jax  # a model of ours has loaded it

    stats = [device.memory_stats() for device in jax.local_devices()]
    device = [one["peak_bytes_in_use"] for one in stats if one and "peak_bytes_in_use" in one]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    return {"peak_host_mib": host, "peak_device_mib": sum(device) / 2**20 if device else None}


def _of(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(asked["answering"])
    adapter = given.pop("adapter")
    stop = tuple(given.pop("stop"))
    answering = Answering(**given, stop=stop, adapter=Path(adapter) if adapter else None)
    prompts = [messages_field({"messages": rows}, "messages") for rows in asked["prompts"]]
    return timed(asked["line"], answering, prompts) | _peaks()


if __name__ == "__main__":
    print(json.dumps(_of(json.load(sys.stdin))))

"""Requests to a server of the tiny model and two experts, spoilt and sent in thousands."""

import random
from collections import Counter
from pathlib import Path

from robust_outcomes import Row, is_wanted

NAME = "requests"


def rows(home: Path, count: int, draw: random.Random, only: str) -> list[Row]:
    """One row for each path, with `count` requests in all."""
    if not count or not is_wanted(NAME, only):
        return []
    import fuzzed_requests  # with jax
    import tiny_server

    found, faults = fuzzed_requests.send_all(
        tiny_server.write_folders(home), count, draw.randrange(2**32)
    )
    for fault in faults:
        print(f"FAULT {fault}", flush=True)
    rows = []
    for path in fuzzed_requests.PATHS.values():
        sent = [one for one in found if one.path == path]
        ends = Counter(one.status == 200 for one in sent)
        bad = [fault for one in sent if (fault := one.fault)]
        rows.append(Row((f"`{path}`", len(sent), ends[True], ends[False], len(bad)), bad))
    rows[-1].faults.extend(fault for fault in faults if not fault.startswith("/"))
    return rows

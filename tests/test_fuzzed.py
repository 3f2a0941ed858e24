"""A sample of `make robustness`: spoilt rows of every schema, votes, replays and verdicts."""

import fuzzed
import pytest

from hen_jax.data.schemas import SCHEMAS


@pytest.mark.parametrize("name", [*SCHEMAS, "ratings", "choices", "replay", "verdict"])
def test_spoilt_rows_are_read_or_refused_in_one_line(tmp_path, name):
    kind = fuzzed.kinds(tmp_path)[name]
    require_taken_or_refused(name, kind, tmp_path)


def test_a_spoilt_header_of_gguf_is_read_or_refused_in_one_line(tmp_path):
    require_taken_or_refused("gguf", fuzzed.gguf_kind(tmp_path), tmp_path)


def require_taken_or_refused(name, kind, tmp_path):
    counts, faults = fuzzed.fuzz(name, kind, 120, tmp_path, seed=0)
    assert not faults, faults[0]
    assert counts["refused"] > 0
    assert counts["read"] > 0

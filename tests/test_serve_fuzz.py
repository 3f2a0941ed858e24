"""Whatever is sent, the answer is one that the API has, and the server answers the next one."""

import json

import fuzzed_requests
import pytest
import tiny_server
from fuzzed_requests import Answered


def test_any_request_has_an_answer(tmp_path):
    folders = tiny_server.write_folders(tmp_path)
    found, faults = fuzzed_requests.send_all(folders, 240, seed=5)
    assert not faults, faults[0]
    statuses = [one.status for one in found]
    assert statuses.count(200) > 0.04 * len(found)  # some get through, and are answered
    assert {200, 400, 404} <= set(statuses)


@pytest.mark.parametrize(
    ("status", "answer", "is_good"),
    [
        (400, {"error": {"message": "no"}}, True),
        (500, {"error": {"message": "no"}}, False),
        (400, {"error": {"message": ""}}, False),
        (400, {"error": {"message": "x" * 700}}, False),
        (404, {"detail": "no"}, False),
        (200, {"choices": [{}]}, True),
        (200, {"choices": []}, False),
        (200, 'data: {"a": 1}\n\ndata: [DONE]\n\n', True),
        (200, ': ping\n\ndata: {"a": 1}\n\ndata: [DONE]\n\n', True),
        (200, 'data: {"a": 1}\n\n', False),
        (200, 'data: {"a": \n\ndata: [DONE]\n\n', False),
        (200, "", False),
    ],
)
def test_an_answer_that_no_client_could_read_is_a_fault(status, answer, is_good):
    text = answer if isinstance(answer, str) else json.dumps(answer)
    fault = Answered("/v1/completions", b"{}", status, text.encode()).fault
    assert (fault is None) == is_good

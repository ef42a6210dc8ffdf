"""The message that the kubelet keeps."""

import json

import pytest

from rfuav_trainer.process import termination


@pytest.mark.parametrize("length", [10, 3_000, 100_000])
def test_a_termination_message_fits_and_stays_json(length):
    status = {
        "progressPercentage": 5,
        "metrics": [{"name": "x" * 40, "value": "1"}] * (length // 100),
        "rfuav": {"sequence": 1},
    }
    found = termination._fit({"reason": "R", "message": 'm"\u00e4' * length, "exitCode": 2, "trainerStatus": status})
    assert len(found) <= 4096
    content = json.loads(found)
    assert content["reason"] == "R"
    if length == 10:
        assert content["trainerStatus"] == status

"""Marks of success: whose they are, and what is none."""

import json

import pytest
from trainer.trainer_kit import training_spec

from rfuav_trainer.storage import marks


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_mark_is_no_mark(desk, content):
    path = desk / "_SUCCESS"
    path.write_text(content)
    assert marks.finished_before(path, desk.job("TrainingJob", training_spec())) is None


def test_the_mark_of_another_job_is_not_this_jobs(desk):
    path = desk / "_SUCCESS"
    path.write_text(json.dumps({"uid": "someone"}))
    assert marks.finished_before(path, desk.job("TrainingJob", training_spec())) is None

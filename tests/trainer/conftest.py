"""Fixtures of the trainer's tests; torch keeps to one thread, as a small pod does."""

import pytest
import torch
from trainer.trainer_kit import Desk, image_set


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def desk(tmp_path):
    """Empty volumes."""
    return Desk(tmp_path)


@pytest.fixture
def image_desk(desk):
    """Volumes with a small set of labelled pictures in captures/train."""
    image_set(desk / "captures/train")
    return desk

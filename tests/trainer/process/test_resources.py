"""What a process may use of the pod: cores and memory."""

import pytest
from trainer.trainer_kit import training_spec

from rfuav_trainer.process import resources


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [
        (("4", "max 100000", 8), 4),
        (("500m", "max 100000", 8), 1),
        (("4", "150000 100000", 8), 1),
        (("4", "300000 100000", 8), 3),
        (("64", "", 2), 2),
    ],
)
def test_cpus(desk, monkeypatch, limits, cpus):
    asked, quota, machine = limits
    (desk / "cpu.max").write_text(quota)
    monkeypatch.setattr(resources, "CGROUP", desk.root)
    monkeypatch.setattr(resources.os, "cpu_count", lambda: machine)
    job = desk.job("TrainingJob", training_spec(resources={"gpus": 0, "cpu": asked}))
    assert resources.cpus(job) == cpus


def test_memory(desk, monkeypatch):
    (desk / "memory.max").write_text("1000000\n")
    monkeypatch.setattr(resources, "CGROUP", desk.root)
    assert resources.memory(desk.job("TrainingJob", training_spec())) == 1_000_000

"""What a process says of its GPU. There is none here: torch.cuda is replaced at the functions that ask the driver."""

import pytest
import torch

from rfuav_trainer.process import runtime

GPU = torch.device("cuda", 0)


@pytest.fixture
def holds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**33 if device == GPU else 0)


def test_on_a_cpu_nothing_is_said():
    assert runtime.gpu_use(torch.device("cpu")) == {}


def test_memory_of_the_process_and_utilisation_of_the_device(holds, monkeypatch):
    monkeypatch.setattr(torch.cuda, "utilization", lambda _device: 87)
    assert runtime.gpu_use(GPU) == {"gpuMemoryBytes": 2**33, "gpuUtilization": 87}


@pytest.mark.parametrize(
    "problem", [ModuleNotFoundError("pynvml"), RuntimeError("cuda driver can't be loaded"), OSError()]
)
def test_where_nvml_does_not_answer_the_memory_is_said_alone(holds, monkeypatch, problem):
    def asked(_device):
        raise problem

    monkeypatch.setattr(torch.cuda, "utilization", asked)
    assert runtime.gpu_use(GPU) == {"gpuMemoryBytes": 2**33}


def test_torch_finds_the_library_of_nvml():
    """Without it, utilisation would be missing in every image, silently."""
    assert torch.cuda._HAS_PYNVML

"""What a benchmark measures on a GPU alone: how fast it multiplies at best, and how long it has nothing to do."""

from collections.abc import Callable, Iterable

import torch
from bench import machine
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from rfuav_trainer.networks import architectures

SIDE, REPEATS = 8192, 100  # some 0.15 s on an H200: long enough for its clocks to settle


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """How much of the line the intervals (start, end) cover together; what several cover counts once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def idle_share(kernels: list[tuple[float, float]], whole: float) -> float | None:
    """The share (0 to 1) of `whole` in which no kernel runs, in one unit of time; None: nothing was recorded."""
    return max(0.0, 1 - covered(kernels) / whole) if kernels else None


def idle(act: Callable[[], object]) -> float | None:
    """The share of the time of `act` in which the GPU runs no kernel. Copies are none."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        took = machine.seconds(act)
    kernels = [event.time_range for event in found.events() if event.activity_type == "kernel"]  # in microseconds
    return idle_share([(kernel.start, kernel.end) for kernel in kernels], took * 1e6)


def flops(architecture: str, classes: int, size: int) -> float:
    """Floating-point operations (a multiplication and an addition are two) of a picture forward and backward.

    Counted without a device or a number. Attention counts as its plain matrix products: what a fused kernel computes
    twice is no work done.
    """
    pictures = 2  # a batch norm over a single pixel takes no single picture
    with torch.device("meta"):
        network = architectures.build(architecture, classes, size).train()
        given = torch.empty(pictures, 3, size, size)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(given).sum().backward()
    return counter.get_total_flops() / pictures


def matmul_rate() -> float:
    """Floating-point operations a second of large bfloat16 matrix products on the current GPU."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):  # the first choose an algorithm
        torch.matmul(left, right)
    began.record()
    for _ in range(REPEATS):
        torch.matmul(left, right)
    ended.record()
    torch.cuda.synchronize()
    return 2 * SIDE**3 * REPEATS / (began.elapsed_time(ended) / 1000)  # of milliseconds


def against_matmul(pictures: float, operations: float, rate: float) -> dict[str, float]:
    """`tflops` of the matrix products (`rate`, a second), `achieved` by so many pictures a second, its `fraction`."""
    achieved = pictures * operations
    return {
        "tflops": round(rate / 1e12, 1),
        "achieved": round(achieved / 1e12, 1),
        "fraction": round(achieved / rate, 3),
    }

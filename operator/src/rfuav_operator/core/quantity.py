"""Kubernetes quantities as whole numbers, the resources that are counted, and numbers as text for people.

Strings like `500m`, `16Gi` or `1e3` from specs come in; milli-units or bytes go out, rounded up as Kubernetes does.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import msgspec

from rfuav_crds.contract import GPU
from rfuav_crds.quantity import parse_quantity

_MIB = 2**20


@lru_cache(maxsize=8192)
def milli(value: str | float | None) -> int:
    """Thousandths of a unit (CPU): `"1.5"` is 1500. None is 0.

    Raises:
        ValueError: not a quantity, or below 0.
    """
    return 0 if value is None else ceil(_amount(value) * 1000)


@lru_cache(maxsize=8192)
def whole(value: str | float | None) -> int:
    """Whole units (bytes, counts): `"1Ki"` is 1024. None is 0.

    Raises:
        ValueError: not a quantity, or below 0.
    """
    return 0 if value is None else ceil(_amount(value))


def _amount(value: str | float) -> Decimal:
    amount = parse_quantity(value)
    if amount < 0:
        raise ValueError(f"{value!r} is negative")
    return amount


def show_cpu(milli_cpu: int) -> str:
    """CPU for people: `1500` is `1.5`."""
    return f"{milli_cpu / 1000:g}"


def show_bytes(count: int) -> str:
    """Bytes for people, in the binary unit that fits, rounded down to a tenth: `17179869184` is `16Gi`."""
    for shift, suffix in ((40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")):
        if count >= 1 << shift:
            return f"{(count * 10 >> shift) / 10:g}{suffix}"
    return str(count)


def mib(count: int) -> int:
    """MiB as bytes (feature discovery labels give MiB)."""
    return count * _MIB


# --- one vector of resources


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """An amount of each resource: what a pod requests, what a node offers, what is left.

    The rest may be below 0 after limits shrank. Missing slots do not matter to a pod without GPU.
    """

    slots: int = 0  # of GPUs
    cpu_milli: int = 0
    memory: int = 0  # bytes
    pods: int = 0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.slots + other.slots,
            self.cpu_milli + other.cpu_milli,
            self.memory + other.memory,
            self.pods + other.pods,
        )

    def __sub__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.slots - other.slots,
            self.cpu_milli - other.cpu_milli,
            self.memory - other.memory,
            self.pods - other.pods,
        )

    @property
    def size(self) -> tuple[int, ...]:
        """What one pod takes of a node beside its slots and its place: CPU and memory."""
        return self.cpu_milli, self.memory

    def too_large_for(self, room: "Amounts") -> str:
        """The first resource that `room` lacks, its places for pods not counted; empty: it has enough."""
        if self.slots > room.slots and self.slots > 0:
            return "slots"
        if self.cpu_milli > room.cpu_milli:
            return "cpu_milli"
        return "memory" if self.memory > room.memory else ""

    def short_of(self, room: "Amounts") -> str:
        """The first resource that `room` lacks, its places for pods included; empty: this fits."""
        return self.too_large_for(room) or ("pods" if self.pods > room.pods else "")

    def fits(self, room: "Amounts") -> bool:
        """Whether `room` has enough of everything."""
        return (
            (self.slots <= room.slots or self.slots <= 0)
            and self.cpu_milli <= room.cpu_milli
            and self.memory <= room.memory
            and self.pods <= room.pods
        )

    def shortfall(self, room: "Amounts") -> "Amounts":
        """How much is missing in `room`."""
        return Amounts(
            max(0, self.slots - max(0, room.slots)),
            max(0, self.cpu_milli - room.cpu_milli),
            max(0, self.memory - room.memory),
            max(0, self.pods - room.pods),
        )

    def crowds_out(self, other: "Amounts", room: "Amounts") -> bool:
        """Whether this takes of something that both ask for so much that `room` has too little left for the other."""
        return (
            (self.slots > 0 and other.slots > 0 and self.slots + other.slots > room.slots)
            or (self.cpu_milli > 0 and self.cpu_milli + other.cpu_milli > room.cpu_milli)
            or (self.memory > 0 and self.memory + other.memory > room.memory)
            or (self.pods > 0 and self.pods + other.pods > room.pods)
        )


NOTHING = Amounts()


def total(several: Iterable[Amounts]) -> Amounts:
    """All of them together."""
    slots = cpu_milli = memory = pods = 0
    for one in several:
        slots += one.slots
        cpu_milli += one.cpu_milli
        memory += one.memory
        pods += one.pods
    return Amounts(slots, cpu_milli, memory, pods)


class Resource(NamedTuple):
    """How one resource is read, said, and named in a ResourceQuota."""

    title: str
    read: Callable[[str], int]
    show: Callable[[int], str]
    quota_keys: tuple[str, ...]


RESOURCES = {
    "slots": Resource("GPU slots", whole, str, (f"requests.{GPU}", GPU, f"limits.{GPU}")),
    "cpu_milli": Resource("CPU", milli, show_cpu, ("requests.cpu", "cpu")),
    "memory": Resource("memory", whole, show_bytes, ("requests.memory", "memory", "limits.memory")),
    "pods": Resource("pods", whole, str, ("pods", "count/pods")),
}
"""By the field of `Amounts`."""

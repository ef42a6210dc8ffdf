"""Kubernetes quantities as whole numbers, and numbers as text for people.

Strings like `500m`, `16Gi` or `1e3` from specs come in; milli-units or bytes go out, rounded up as Kubernetes does.
"""

from decimal import Decimal
from functools import lru_cache
from math import ceil

from rfuav_crds.quantity import parse_quantity

_MIB = 2**20


@lru_cache(maxsize=8192)
def milli(value: str | float | None) -> int:
    """Thousandths of a unit (CPU): `"1.5"` is 1500. None is 0.

    Raises:
        ValueError: for what is not a quantity, and for one below 0.
    """
    return 0 if value is None else ceil(_amount(value) * 1000)


@lru_cache(maxsize=8192)
def whole(value: str | float | None) -> int:
    """Whole units (bytes, counts): `"1Ki"` is 1024. None is 0.

    Raises:
        ValueError: for what is not a quantity, and for one below 0.
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

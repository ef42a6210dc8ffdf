"""Kubernetes quantities (`500m`, `16Gi`, `100M`, 4) as numbers, and the field types that hold them."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from rfuav_crds.rules import Rule

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?", re.ASCII
)
_FACTOR = {
    **{
        suffix: Decimal(1000) ** power
        for power, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], -3)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
_LONGEST = 32  # characters
_LARGEST_EXPONENT = 32  # beyond it no number that fits is left; 1e999999 alone would take minutes to multiply
_LARGEST = 2**63  # 8Ei; Kubernetes has one less


def parse_quantity(value: str | float) -> Decimal:
    """The number that a Kubernetes quantity stands for, in its base unit (cores, bytes, samples per second).

    Raises:
        ValueError: `value` is not a quantity, for example `16GB`, or beyond Kubernetes' limit (8Ei).
    """
    text = str(value)
    found = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError(
            f"{text[:_LONGEST]!r} is not a quantity: write a number with an optional suffix, as in 500m, 16Gi or 100M"
        )
    suffix = found["suffix"] or ""
    if suffix in _FACTOR:
        number = Decimal(found["number"]) * _FACTOR[suffix]
    elif abs(int(suffix[1:])) <= _LARGEST_EXPONENT:
        number = Decimal(found["number"] + suffix)
    else:
        number = Decimal("Infinity")
    if abs(number) > _LARGEST:
        raise ValueError(f"{text} is out of range: a quantity is at most 8Ei")
    return number


def _int_or_string(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("int_or_string", 'must be a whole number or a string in quotes, as in "500m"')
    return value


INT_OR_STRING = WithJsonSchema({"x-kubernetes-int-or-string": True})
IntOrString = Annotated[int | str, BeforeValidator(_int_or_string), INT_OR_STRING]


def quantity_rule(low: str, high: str, message: str, *, text: str = "string(self)") -> Rule:
    """A rule that an int-or-string is a quantity of at least `low` and at most `high`.

    An empty `high` is no bound: inside a list, a second comparison costs more than the API server allows. `text` is the
    value as a string; `self` where it is one, whose known length keeps the rule cheap.
    """
    bottom = parse_quantity(low)
    top = parse_quantity(high) if high else Decimal("Infinity")

    def check(value: str | int) -> bool:
        try:
            number = parse_quantity(value)
        except ValueError:
            return False
        return bottom <= number <= top

    cel = f"isQuantity({text}) && quantity({text}).compareTo(quantity('{low}')) >= 0"
    return Rule(
        cel=f"{cel} && quantity({text}).compareTo(quantity('{high}')) <= 0" if high else cel,
        message=message,
        check=check,
    )


def cel_quantity(path: str) -> str:
    """The CEL expression that reads the int-or-string at `path` as a quantity."""
    return f"quantity(string({path}))"


Cpu = Annotated[
    IntOrString,
    quantity_rule("1m", "1024", 'write cpu in cores, as in "4", or in thousandths, as in 500m; from 1m to 1024'),
]
Memory = Annotated[
    IntOrString,
    quantity_rule(
        "1Mi", "64Ti", "write memory with a binary suffix, as in 16Gi or 512Mi (not 16GB, 16 or 512m); from 1Mi to 64Ti"
    ),
]
MemoryOrZero = Annotated[
    IntOrString,
    quantity_rule("0", "", "write memory with a binary suffix, as in 22Gi or 512Mi (not 22GB), or 0"),
]
MemoryText = Annotated[
    str,
    Field(max_length=_LONGEST),
    quantity_rule(
        "1Mi", "64Ti", "write memory with a binary suffix, as in 2Gi or 512Mi (not 2GB); from 1Mi to 64Ti", text="self"
    ),
]
Frequency = Annotated[
    IntOrString,
    quantity_rule(
        "1", "100G", 'write a rate in samples per second, as in 100M, "2500k" or 100000000 (not 100MHz or 100 MS/s)'
    ),
]


def auto_or_count(low: int, high: int) -> Rule:
    """A rule that an int-or-string is the word `auto` or a whole number from `low` to `high`."""
    return Rule(
        cel=f"self == 'auto' || (type(self) == int && self >= {low} && self <= {high})",
        message=f"write auto or a whole number from {low} to {high}, without quotes",
        check=lambda value: value == "auto" or (isinstance(value, int) and low <= value <= high),
    )

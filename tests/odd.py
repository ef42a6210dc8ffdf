"""Odd values by a seed: what tenants, neighbours, nodes and other tools may write where a plain value is expected."""

import random
from typing import Any

QUANTITIES = (
    "1", "500m", "16Gi", "1e3", "0", "1e999999", "1e4294967296", "1e-999999", "-1", "-16Gi", "9" * 30, "9" * 5000, "Infinity",
    "NaN", "8Ei", "1e18", "1e19", ".5", "", " 1", "1 Gi", "0x10", "\u0661", "1n", "+3", "1e+3", "1E3", "nan", "\0", "1" + "0" * 31,
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 100, 101, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 3e11, 1e300, 1.7e308, 0.5,
    -0.0, 5e-324, True, False,
)  # fmt: skip
INSTANTS = (
    "2026-01-01T12:00:00Z", "2026-01-01T12:00:00.123456789Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", "2026-01-01T12:00:00+02:00",
)  # fmt: skip
BROKEN_INSTANTS = (
    "2026-01-01T12:00:00", "0000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T23:59:60Z", "yesterday", "",
    "2026-01-01", "99999-01-01T00:00:00Z", "2026-01-01T12:00:00+99:99", 1, 1e300, None,
)  # fmt: skip
TEXTS = (
    "", "a", "plain words", "\ud83d", "lost \udc00 half", "\0", "\x1b[2J", "50 %\r60 %", "\u202eevil", "😀" * 5, "ß" * 300, "x" * 1025,
    "-", "a/b", "../..", "{}", "[" * 4096, '{"error":"\\ud83d"}', "null", "%s %n {0}", "\n\n", "\ufeff", "é" * 254, "GPU-1,GPU-2",
)  # fmt: skip


class Odd(random.Random):
    """Draws odd values; the same for the same seed."""

    def often(self, chance: float) -> bool:
        return self.random() < chance

    def text(self, most: int = 0) -> str:
        """A text; now and then one character longer than `most`."""
        if most and self.often(0.1):
            return self.choice("xß\ud83d\0") * (most + 1)
        return self.choice(TEXTS)

    def number(self, *, finite: bool = False) -> Any:
        if not finite and self.often(0.1):
            return self.choice((float("nan"), float("inf"), float("-inf")))
        return self.choice(NUMBERS) if self.often(0.7) else self.randint(-(2**70), 2**70)

    def anything(self, depth: int = 3) -> Any:
        """Any JSON value."""
        if depth and self.often(0.2):
            return {self.text(): self.anything(depth - 1) for _ in range(self.randint(0, 3))}
        if depth and self.often(0.2):
            return [self.anything(depth - 1) for _ in range(self.randint(0, 3))]
        return self.choice(
            (None, self.text(), self.number(finite=True), self.choice(QUANTITIES), self.choice(INSTANTS))
        )

    def of(self, schema: dict[str, Any]) -> Any:
        """A value of the type that the schema says, and of any size."""
        kind = schema.get("type")
        if "enum" in schema:
            return self.choice(schema["enum"])
        if kind == "string":
            return (
                self.choice(INSTANTS) if schema.get("format") == "date-time" else self.text(schema.get("maxLength", 0))
            )
        if kind == "integer":
            found = self.number(finite=True)
            return found if type(found) is int else 1
        if kind == "number":
            found = self.number()
            return 0.5 if isinstance(found, bool) else found
        if kind == "boolean":
            return self.often(0.5)
        if kind == "array":  # one item often, so that a long list costs little
            many = schema["maxItems"] + 5 if self.often(0.1) else self.randint(0, 2)
            return [self.of(schema["items"])] * many
        if kind == "object" and "additionalProperties" in schema:
            many = schema["maxProperties"] + 5 if self.often(0.1) else self.randint(0, 2)
            one = self.of(schema["additionalProperties"])
            return {f"{self.text()[:9]}{i}": one for i in range(many)}
        if kind == "object":
            wanted = schema.get("required", ())
            return {
                name: self.of(inner)
                for name, inner in schema.get("properties", {}).items()
                if name in wanted or self.often(0.4)
            }
        return self.anything()

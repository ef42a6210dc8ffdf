"""A rule of the API, written once: a CEL expression for the API server and a Python check for everybody else.

A `Rule` in the `Annotated[...]` of a field, or in the `rules` of a model, becomes an entry of
`x-kubernetes-validations` in the generated schema and a pydantic validator in this process. A rule that compares with
the stored object (`oldSelf`) has no Python side: a file on a laptop has no past.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Reason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


@dataclass(frozen=True)
class Rule:
    """What must hold for a value, and what to write instead when it does not.

    Attributes:
        cel: the expression over `self` (and `oldSelf`), true when the value is good.
        message: what is wrong and what to write instead, shown to the user.
        check: the same in Python over the validated value; None for rules that compare with the stored object.
        field: path below the value that the message is about, as in `.weights`.
        reason: the machine-readable reason of the rejection.
        words: a CEL expression for the API server's message instead of `message`.
    """

    cel: str
    message: str
    check: Callable[[Any], bool] | None = None
    field: str = ""
    reason: Reason = "FieldValueInvalid"
    words: str = ""

    def as_schema(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        if self.words:
            entry["messageExpression"] = self.words
        if self.field:
            entry["fieldPath"] = self.field
        if self.reason != "FieldValueInvalid":
            entry["reason"] = self.reason
        return entry

    def broken_by(self, value: Any) -> bool:
        """Whether the Python side of the rule refuses `value`."""
        return self.check is not None and not self.check(value)

    def _validate(self, value: Any) -> Any:
        if value is not None and self.broken_by(value):
            raise broken([self])
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate after the type itself was checked."""
        inner = handler(source)
        return inner if self.check is None else core_schema.no_info_after_validator_function(self._validate, inner)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the CEL side to the schema of the annotated type."""
        out = dict(handler(schema))
        out["x-kubernetes-validations"] = [*out.get("x-kubernetes-validations", []), self.as_schema()]
        return out


def broken(rules: list[Rule]) -> PydanticCustomError:
    """The validation error for `rules`, which one value breaks together."""
    text = "; ".join(f"{rule.field.lstrip('.')}: {rule.message}" if rule.field else rule.message for rule in rules)
    lines = [(rule.field, rule.message) for rule in rules]
    return PydanticCustomError("rule", "{text}", {"text": text, "lines": lines})


def matches(pattern: str, message: str, *, optional: bool = False) -> Rule:
    """A rule that the whole string matches `pattern` (the common subset of RE2 and Python's `re`).

    With `optional`, the empty string is good too.
    """
    compiled = re.compile(pattern, re.ASCII)
    cel = f"self.matches(r'^(?:{pattern})$')"
    return Rule(
        cel=f"self == '' || {cel}" if optional else cel,
        message=message,
        check=lambda value: (optional and value == "") or compiled.fullmatch(value) is not None,
    )


@dataclass(frozen=True)
class Immutable:
    """Marks a field of a job's spec that cannot change once the job exists; `unchanged` makes the rule about them."""


IMMUTABLE: Final = Immutable()
_CHANGED = "cannot change once the job exists: create a job with a new name, or delete this one and create it again"
# The API server runs every rule on every write of the status too, and CEL is slow to compare objects. A write of the
# status leaves the spec as it is stored, a write of the spec the status: where the status changed, the spec did not.
_STATUS_WRITE = "has(self.status) != has(oldSelf.status) || (has(self.status) && self.status != oldSelf.status)"


def immutable(spec: type[BaseModel]) -> dict[str, bool]:
    """The fields marked `IMMUTABLE`, as on the wire, and whether each may be left out."""
    fields = spec.model_fields.items()
    return {to_camel(name): field.default is None for name, field in fields if IMMUTABLE in field.metadata}


def unchanged(spec: type[BaseModel]) -> Rule:
    """The rule, at the root of a kind, that no field of its spec marked `IMMUTABLE` is added, changed or removed."""
    same = {name: _same(name, optional=optional) for name, optional in immutable(spec).items()}
    changed = " + ".join(f"({test} ? '' : ' spec.{name}')" for name, test in same.items())
    return Rule(
        cel=f"{_STATUS_WRITE} || ({' && '.join(same.values())})",
        message=f"{', '.join(same)} {_CHANGED}",
        words=f"'{_CHANGED}. Changed:' + {changed}",
        field=".spec",
        reason="FieldValueForbidden",
    )


def _same(name: str, *, optional: bool) -> str:
    new, old = f"self.spec.{name}", f"oldSelf.spec.{name}"
    return f"(has({new}) == has({old}) && (!has({new}) || {new} == {old}))" if optional else f"{new} == {old}"


@dataclass(frozen=True)
class ListType:
    """How Kubernetes merges a list: by the values of its items, or by one field of them that must not repeat."""

    kind: Literal["set", "map"]
    key: str = ""

    def _validate(self, value: list[Any]) -> list[Any]:
        seen: list[Any] = []
        for item in value:
            mark = item.model_dump(by_alias=True)[self.key] if self.kind == "map" else item
            if mark in seen:
                of = f" {self.key}" if self.key else ""
                raise PydanticCustomError(
                    "duplicate", "duplicate{of} {mark}: write it once", {"of": of, "mark": repr(mark)}
                )
            seen.append(mark)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse duplicates, as the API server does."""
        return core_schema.no_info_after_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add it to the generated schema."""
        out = {**handler(schema), "x-kubernetes-list-type": self.kind}
        if self.kind == "map":
            out["x-kubernetes-list-map-keys"] = [self.key]
        return out


ATOMIC: Final[JsonDict] = {"x-kubernetes-map-type": "atomic"}
"""`json_schema_extra` of an object that is owned whole and stored as it was applied, without its defaults: rules ask
`has()` first. Owners of its fields would be read and written with every status."""

SET = ListType("set")


def listed_by(key: str) -> ListType:
    """A list whose items are identified by the field `key`."""
    return ListType("map", key)

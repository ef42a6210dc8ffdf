"""Objects of the API server, decoded in part: only the fields that a struct names are read.

In: bytes or plain dicts. Fields that cannot be read are left out, and the reason is returned with the object, so that
an unreadable object keeps its metadata and does not affect other objects.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import msgspec
import orjson
from msgspec import Struct

_STEP = re.compile(r"[.](\w+)")  # of the path in an error of msgspec
_LEFT_OUT = 16  # fields of one object
_WORDS = 300  # characters


class DecodeError(ValueError):
    """An object whose name cannot be read."""


class Wire(Struct, rename="camel", frozen=True):
    """Part of an object, by the names that JSON has for its fields."""


class Owner(Wire, frozen=True):
    """An owner of an object."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Meta(Wire, frozen=True):
    """The metadata that is read of every object."""

    name: str
    uid: str
    resource_version: str
    namespace: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[Owner, ...] | None = None


class Bare(Wire, frozen=True):
    """Any object reduced to its metadata."""

    metadata: Meta


class Condition(Wire, frozen=True):
    """One condition of a status."""

    type: str
    status: str
    last_transition_time: datetime | None = None
    message: str | None = None


R = TypeVar("R")


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


def leniently(data: bytes | msgspec.Raw, kind: type[R]) -> tuple[R, str]:
    """The object without the fields that cannot be read, and why they cannot; empty: all was read.

    Raises:
        DecodeError: name, UID or version are missing in the rest.
    """
    decoder = _decoder(kind)  # type: ignore[arg-type]  # a type is hashable
    try:
        return decoder.decode(data), ""
    except (ValueError, RecursionError) as error:
        why = words(error)
    try:
        body = orjson.loads(bytes(data))
        for _ in range(_LEFT_OUT):
            try:
                return decoder.decode(orjson.dumps(body)), why
            except msgspec.ValidationError as error:
                body = _without(body, _STEP.findall(str(error).rpartition(" - at `$")[2])[:2])
    except (ValueError, TypeError, RecursionError) as error:
        raise DecodeError(words(error)) from error
    raise DecodeError(why)


def converted(body: Mapping[str, Any], kind: type[R]) -> tuple[R, str]:
    """The same of plain values.

    Raises:
        DecodeError: as above.
    """
    try:
        return msgspec.convert(body, kind), ""
    except (ValueError, TypeError, RecursionError):  # a part that is kept as bytes, for one
        return leniently(orjson.dumps(body), kind)


def _without(body: Any, path: list[str]) -> Any:
    """The object without the field, or part of a field, that is at fault."""
    if not path or not isinstance(body, dict) or path[0] not in body:
        raise DecodeError("too much of it cannot be read")
    section = body[path[0]]
    rest = {key: value for key, value in body.items() if key != path[0]}
    if len(path) > 1 and isinstance(section, dict) and path[1] in section:
        rest[path[0]] = {key: value for key, value in section.items() if key != path[1]}
    return rest


def words(error: BaseException) -> str:
    """What an error says, for people: short, and without what no terminal takes."""
    return printable((str(error) or type(error).__name__)[:_WORDS])


def printable(text: str) -> str:
    """The text without what no terminal takes."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\t\n" else "\ufffd" for c in text)


def section(body: Any, name: str) -> Mapping[str, Any]:
    """A part of an object that is one itself; empty where it is not."""
    found = body.get(name) if isinstance(body, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def version(meta: Meta | Mapping[str, Any]) -> int:
    """The resourceVersion as a number."""
    return int(meta.resource_version if isinstance(meta, Meta) else meta["resourceVersion"])

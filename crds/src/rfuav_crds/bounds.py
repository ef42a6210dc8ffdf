"""What a value may be at most, taken from the schema that the API server checks it by.

A structural schema comes in once; a function goes out that makes any value fit: numbers and instants are moved to the
nearest that is allowed, long texts are cut, of long lists and maps the newest (last) entries stay, and code points
that no JSON encoder or terminal takes are replaced. What has another type than the schema says is left as it is:
whoever reads the value finds that out.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from math import isfinite
from typing import Any

Fit = Callable[[Any], Any]
"""Makes a JSON value fit; one that does already comes back as the same object. `MISFIT` cannot be made to."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Between these, seconds can be added to an instant without leaving what `datetime` holds."""
ORDINARY = "^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$"
"""How nearly all instants are written; between the two by the form alone."""
MISFIT = object()
_REPLACED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ordinary = re.compile(ORDINARY, re.ASCII).fullmatch
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))?", re.ASCII
)


def clean(text: str) -> str:
    """The text without lone surrogates, control characters (tabs and line ends stay) and changes of direction."""
    if text.isprintable():
        return text
    return _REPLACED.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def bounded(instant: datetime) -> datetime:
    """The instant in UTC, moved to `EARLIEST` or `LATEST` when it lies beyond; without a zone it is read as UTC."""
    aware = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    if aware < EARLIEST:
        return EARLIEST
    return LATEST if aware > LATEST else aware.astimezone(UTC)


def fit_to(schema: Mapping[str, Any], *, texts: bool = True) -> Fit:
    """The function that makes a value fit the structural schema; without `texts`, strings stay as they are."""
    kind = schema.get("type")
    if kind == "string" and texts:
        if schema.get("format") == "date-time":
            return _instant
        return _text(schema["maxLength"]) if "maxLength" in schema else _as_it_is
    if kind in ("integer", "number"):
        return _number(schema.get("minimum", float("-inf")), schema.get("maximum", float("inf")))
    if kind == "array":
        return _list(fit_to(schema["items"], texts=texts), schema["maxItems"])
    if kind == "object" and "additionalProperties" in schema:
        return _map(fit_to(schema["additionalProperties"], texts=texts), schema["maxProperties"], texts=texts)
    if kind == "object":
        return _object({name: fit_to(inner, texts=texts) for name, inner in schema.get("properties", {}).items()})
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _text(most: int) -> Fit:
    def fit(value: Any) -> Any:
        if type(value) is not str:
            return value
        if len(value) > most:
            value = value[:most]
        return value if value.isprintable() else clean(value)

    return fit


def _number(least: float, most: float) -> Fit:
    def fit(value: Any) -> Any:
        kind = type(value)
        if kind is int or kind is float:
            if kind is float and not isfinite(value):
                return MISFIT
            if value < least:
                return type(value)(least)
            if value > most:
                return type(value)(most)
        return value

    return fit


def _instant(value: Any) -> Any:
    if type(value) is not str or _ordinary(value):
        return value
    found = _INSTANT.fullmatch(value)
    if found is None:
        return value
    sign, hours, minutes = found.groups()[6:]
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    zone = UTC
    try:
        if sign:
            zone = timezone((-1 if sign == "-" else 1) * timedelta(hours=int(hours), minutes=int(minutes)))
        at = bounded(datetime(year, month, day, hour, minute, second, tzinfo=zone))
    except ValueError:
        return value
    text = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value if text == value else text


def _list(one: Fit, most: int) -> Fit:
    def fit(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        fitted = [new for new in map(one, value[-most:]) if new is not MISFIT]
        same = len(fitted) == len(value) and all(new is old for new, old in zip(fitted, value, strict=True))
        return value if same else fitted

    return fit


def _map(one: Fit, most: int, *, texts: bool) -> Fit:
    def fit(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        fitted = {}
        changed = len(value) > most
        for key, old in list(value.items())[-most:]:
            new, name = one(old), clean(key) if texts and type(key) is str else key
            changed = changed or new is not old or name is not key
            if new is not MISFIT:
                fitted[name] = new
        return fitted if changed else value

    return fit


def _object(fields: Mapping[str, Fit]) -> Fit:
    def fit(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        fitted: dict[str, Any] | None = None
        for name, old in value.items():
            one = fields.get(name)
            new = old if one is None else one(old)
            if new is not old:
                if fitted is None:
                    fitted = dict(value)
                if new is MISFIT:
                    del fitted[name]
                else:
                    fitted[name] = new
        return value if fitted is None else fitted

    return fit

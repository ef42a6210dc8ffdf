"""Whatever comes in fits the schema afterwards, and what fits already is left alone."""

import pytest
from odd import Odd
from openapi import faults, schema_of

from rfuav_crds import parse_quantity
from rfuav_crds.bounds import MISFIT, clean, fit_to

TRAINING = schema_of("trainingjobs", "status")
fit = fit_to(TRAINING)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_in_fits_afterwards_and_is_then_left_alone(seed):
    odd = Odd(seed)
    for _ in range(10):
        fits = fit(odd.of(TRAINING))
        assert list(faults(fits, TRAINING)) == []
        assert fit(fits) is fits


def test_what_fits_is_the_same_object():
    status = {"phase": "Running", "attempt": 1, "startedAt": "2026-01-01T12:00:00Z", "other": {"version": ["1"]}}
    assert fit(status) is status


def test_what_has_another_type_is_left_for_the_reader_to_find():
    status = {"attempt": "two", "failures": {}, "conditions": ["x"], "phase": "Exploded", "startedAt": "yesterday"}
    assert fit(status) is status


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "string", "maxLength": 3}, "abcd", "abc"),
        ({"type": "integer", "minimum": 0, "maximum": 10}, 11, 10),
        ({"type": "integer", "minimum": 0}, -1, 0),
        ({"type": "number"}, float("nan"), MISFIT),
        ({"type": "array", "maxItems": 2, "items": {"type": "integer"}}, [1, 2, 3], [2, 3]),
        ({"type": "array", "maxItems": 3, "items": {"type": "number"}}, [1.0, float("inf")], [1.0]),
        (
            {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
            {"old": 1, "new": 2},
            {"new": 2},
        ),
        ({"type": "object", "properties": {"a": {"type": "number"}}}, {"a": float("inf"), "b": 1}, {"b": 1}),
        ({"type": "string", "format": "date-time"}, "9999-12-31T23:59:59Z", "2200-01-01T00:00:00Z"),
        ({"type": "string", "format": "date-time"}, "0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
        ({"type": "string", "format": "date-time"}, "2026-01-01T12:00:00", "2026-01-01T12:00:00Z"),
    ],
)
def test_how_a_value_is_made_to_fit(schema, value, fits):
    assert fit_to(schema)(value) == fits


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain, ünïcode 😀\tand\nlines", "plain, ünïcode 😀\tand\nlines"),
        ("a\ud83db", "a\ufffdb"),
        ("\0", "\ufffd"),
        ("50 %\r60 %\r\nend", "50 %\n60 %\nend"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("evil\u202etxt", "evil\ufffdtxt"),
    ],
)
def test_code_points_that_no_encoder_or_terminal_takes_are_replaced(text, cleaned):
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text", ["1e999999", "1e4294967296", "1e-999999", "9" * 30, "-1e19", "9Ei", "9223372036854775809"]
)
def test_a_quantity_out_of_range_is_refused_at_once(text):
    with pytest.raises(ValueError, match="is out of range"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["9" * 33, "1e" + "9" * 40, "Infinity", "NaN", "9" * 10_000])
def test_text_that_is_too_long_or_not_a_number_is_not_a_quantity(text):
    with pytest.raises(ValueError, match=r"is not a quantity|digits"):
        parse_quantity(text)


def test_an_integer_of_any_length_is_refused():
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(10**1000)

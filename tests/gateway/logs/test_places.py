"""Ids of events: the same from every gateway, and nothing that a client sends breaks them."""

from datetime import UTC, datetime

import pytest

from rfuav_gateway.logs.places import Place, instant, nanoseconds, parsed, since_time


def test_an_id_names_its_place():
    place = Place("train-ab12c-1", 1_800_000_000_123_456_789, 3)
    assert str(place) == "train-ab12c-1:1800000000123456789:3"
    assert parsed(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "a:b:c",
        "pod:1",
        "pod:-1:0",
        "pod:1:0\n",
        "pod:1:0:",
        "Pod:1:0",
        "pod:٣:0",
        "pod:" + "9" * 99 + ":0",
        "p" * 400 + ":1:0",
        "\0",
    ],
)
def test_what_is_no_id_is_none(text):
    assert parsed(text) is None


@pytest.mark.parametrize(
    ("text", "second", "nano"),
    [
        ("2027-01-15T08:00:00.123456789Z", "2027-01-15T08:00:00Z", 123456789),
        ("2027-01-15T10:00:00.5+02:00", "2027-01-15T08:00:00Z", 500000000),  # a runtime that writes its node's zone
        ("2027-01-15T08:00:00Z", "2027-01-15T08:00:00Z", 0),
    ],
)
def test_timestamps_are_exact_to_the_nanosecond(text, second, nano):
    found = nanoseconds(text)
    assert found == int(datetime.fromisoformat(second).timestamp()) * 10**9 + nano
    assert since_time(found) == second
    assert instant(found) == datetime.fromisoformat(second).astimezone(UTC).replace(microsecond=nano // 1000)


@pytest.mark.parametrize(
    "text", ["", "unable", "2027-13-15T08:00:00Z", "2027-01-15T08:00:00.1234567890Z", "2027-01-15 08:00:00Z"]
)
def test_what_is_no_timestamp_is_none(text):
    assert nanoseconds(text) is None


def test_lines_follow_each_other_in_a_pod_by_place_and_between_pods_by_time():
    one = Place("a", 5, 1)
    assert Place("a", 5, 2).follows(one)
    assert not Place("a", 5, 1).follows(one)
    assert not Place("a", 5, 0).follows(one)
    assert Place("b", 5, 0).follows(one)
    assert not Place("b", 4, 9).follows(one)

"""Quantities, ranges, conditions, names and backoff: small tables."""

import re
from datetime import timedelta

import pytest
from unit.core.builders import DEFAULTS, T0, after, job

from rfuav_operator.core import conditions, names, quantity, ranges
from rfuav_operator.core.job import backoff
from rfuav_operator.core.model import Kind
from rfuav_operator.core.quantity import NOTHING, RESOURCES, Amounts


@pytest.mark.parametrize(
    ("text", "milli"),
    [("1", 1000), ("500m", 500), (2, 2000), (0.5, 500), ("1.0001", 1001), ("100u", 1), ("2k", 2_000_000), (None, 0)],
)
def test_milli(text, milli):
    assert quantity.milli(text) == milli


@pytest.mark.parametrize(
    ("text", "count"), [("1Ki", 1024), ("16Gi", 16 * 2**30), ("12G", 12 * 10**9), ("1e3", 1000), ("1.5", 2), (None, 0)]
)
def test_whole(text, count):
    assert quantity.whole(text) == count


@pytest.mark.parametrize("text", ["16GB", "", "one", "1 Gi", "0x10"])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.milli(text)


@pytest.mark.parametrize("read", [quantity.milli, quantity.whole])
def test_no_amount_is_below_0(read):
    with pytest.raises(ValueError, match="'-1' is negative"):
        read("-1")


def test_numbers_for_people():
    assert quantity.show_cpu(1500) == "1.5"
    assert quantity.show_bytes(16 * 2**30) == "16Gi"
    assert quantity.show_bytes(2**30 + 2**29) == "1.5Gi"
    assert quantity.show_bytes(12) == "12"


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([3, 2, 1, 0, 7], "0-3,7"), ([1, 3], "1,3"), (range(1000), "0-999")]
)
def test_ranges(numbers, text):
    assert ranges.show(numbers) == text
    assert ranges.parse(text) == set(numbers)


def test_transition_time_moves_only_with_the_status():
    def put(before, value, at, reason="R"):
        return (
            conditions.Builder(before, now=at, generation=1)
            .put("Ready", value=value, reason=reason, message="m")
            .settled
        )

    first = put((), True, T0)
    same = put(first, True, after(10), reason="Other")
    assert same[0].reason == "Other"
    assert same[0].last_transition_time == T0
    turned = put(same, False, after(20))
    assert turned[0].last_transition_time == after(20)
    assert put(turned, False, after(30)) is turned
    assert conditions.Builder((), now=T0, generation=1).clear("Stalled", reason="x", message="m").settled == ()


def test_pod_names_follow_from_the_job():
    training, single = job("t"), job("i", kind=Kind.INFERENCE)
    sharded = job("i", kind=Kind.INFERENCE, shards=4)
    tag = names.pod_name(training, 1, shard=None).split("-")[1]
    assert names.pod_name(training, 2, shard=None) == f"t-{tag}-2"
    assert names.pod_name(single, 1, shard=0).count("-") == 2
    assert names.pod_name(sharded, 1, shard=3).endswith("-1-3")
    assert names.pod_name(job("t", uid="other"), 2) != names.pod_name(training, 2, shard=None)
    longest = job("j" * 40, kind=Kind.INFERENCE, shards=1000)
    assert len(names.pod_name(longest, 9999, shard=999)) <= 63


def test_backoff_doubles_to_its_cap_and_is_the_same_for_everyone():
    waits = [backoff.delay(job().uid, None, n, DEFAULTS) for n in range(1, 12)]
    for n, wait in enumerate(waits):
        base = min(10 * 2**n, 600)
        assert timedelta(seconds=base) <= wait <= timedelta(seconds=base * 1.2 + 1)
    assert waits == [backoff.delay(job().uid, None, n, DEFAULTS) for n in range(1, 12)]
    assert len({backoff.delay(job(uid=f"u{i}").uid, None, 5, DEFAULTS) for i in range(20)}) > 5


@pytest.mark.parametrize("name", ["gang", "3stage", "9", "4-gpu-run", "1" * 40, "a" * 40, "a.b", "0.5.x"])
def test_the_service_of_every_job_is_a_dns_label_that_begins_with_a_letter(name):
    """The API server takes nothing else as the name of a Service."""
    made = job(name, nodes=2)
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", names.service_name(made))
    assert len(names.service_name(made)) <= 63
    assert len(names.pod_name(made, 9999, rank=15)) <= 63


def test_a_service_is_named_like_the_pods_where_it_can_be():
    made = job("gang", nodes=2)
    assert names.pod_name(made, 1, rank=0) == f"{names.service_name(made)}-1-0"


def test_every_resource_of_the_vector_has_words():
    assert list(RESOURCES) == list(Amounts.__struct_fields__)


@pytest.mark.parametrize("name", Amounts.__struct_fields__)
def test_the_vector_counts_every_resource(name):
    two, five = Amounts(**{name: 2}), Amounts(**{name: 5})
    assert (two + five, five - two) == (Amounts(**{name: 7}), Amounts(**{name: 3}))
    assert quantity.total([two, NOTHING, five, two]) == Amounts(**{name: 9})
    assert (five.fits(five), five.short_of(five), five.shortfall(five)) == (True, "", NOTHING)
    assert (five.fits(two), five.short_of(two), five.shortfall(two)) == (False, name, Amounts(**{name: 3}))
    assert five.too_large_for(two) == ("" if name == "pods" else name)  # fewer places, not smaller ones
    assert (two.crowds_out(two, five), two.crowds_out(five, five)) == (False, True)


def test_only_who_asks_for_slots_misses_them():
    cpu, gone = Amounts(cpu_milli=1), Amounts(slots=-2, cpu_milli=1)
    assert (cpu.fits(gone), cpu.shortfall(gone)) == (True, NOTHING)
    assert Amounts(slots=1).shortfall(gone) == Amounts(slots=1)
    assert not cpu.crowds_out(Amounts(slots=9), gone)
    assert not NOTHING.fits(Amounts(cpu_milli=-1))  # where CPU is overcommitted nothing more goes

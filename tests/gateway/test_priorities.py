"""Priorities 1 to 10 as PriorityClasses."""

from itertools import product

from rfuav_gateway.tasks.priorities import class_name, priority_of, value

KINDS = ("training", "inference")
ALL = [(kind, priority) for kind, priority in product(KINDS, range(1, 11))]


def test_a_smaller_number_goes_first_and_inference_at_equal_numbers():
    ordered = sorted(ALL, key=lambda one: -value(*one))
    assert ordered == [(kind, priority) for priority in range(1, 11) for kind in ("inference", "training")]


def test_no_two_classes_are_equal():
    assert len({value(*one) for one in ALL}) == len({class_name(*one) for one in ALL}) == 20


def test_values():
    """They are installed: jobs of other versions are ordered by them."""
    assert [value("training", p) for p in range(1, 11)] == [1800, 1600, 1400, 1200, 1000, 800, 600, 400, 200, 0]
    assert [value("inference", p) - value("training", p) for p in range(1, 11)] == [100] * 10
    assert (class_name("training", 1), class_name("inference", 10)) == ("rfuav-training-p1", "rfuav-inference-p10")


def test_back():
    assert all(priority_of(class_name(*one)) == one[1] for one in ALL)
    assert [priority_of(name) for name in ("", "rfuav-training", "drones-urgent", "rfuav-training-p11")] == [None] * 4

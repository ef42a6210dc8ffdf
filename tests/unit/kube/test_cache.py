"""The newer resourceVersion wins, in whatever order events, lists and answers arrive."""

from hypothesis import given
from hypothesis import strategies as st

from rfuav_kube.cache import Cache


def cache() -> tuple[Cache[str, int], list[tuple[int | None, int | None]]]:
    changes: list[tuple[int | None, int | None]] = []
    return Cache(lambda old, new: changes.append((old, new))), changes


def test_older_versions_are_ignored():
    held, changes = cache()
    assert held.put("a", 5, 50)
    assert not held.put("a", 5, 51)
    assert not held.put("a", 4, 40)
    assert held.get("a") == 50
    assert changes == [(None, 50)]


def test_a_late_echo_does_not_bring_back_what_was_deleted():
    held, changes = cache()
    held.put("a", 10, 1)
    assert held.remove("a", 12)
    assert not held.put("a", 10, 1)
    assert not held.put("a", 12, 1)
    assert held.put("a", 13, 2)
    assert changes == [(None, 1), (1, None), (None, 2)]


def test_a_deletion_that_came_before_the_object_is_remembered():
    held, _ = cache()
    assert not held.remove("a", 12)
    assert not held.put("a", 11, 1)
    assert held.get("a") is None


def test_an_old_deletion_does_not_drop_a_newer_object():
    held, _ = cache()
    held.put("a", 10, 1)
    assert not held.remove("a", 9)
    assert held.get("a") == 1


def test_gone_without_a_version_means_gone():
    held, _ = cache()
    held.put("a", 10, 1)
    assert held.remove("a")
    assert not held.put("a", 10, 1)


def test_a_list_drops_what_it_does_not_name_unless_that_is_newer():
    held, _ = cache()
    held.put("old", 5, 1)
    held.put("created after the list", 21, 2)
    held.replace([("listed", 7, 3)], 20)
    assert sorted(held) == ["created after the list", "listed"]


def test_retain_looks_only_among_its_own():
    held, _ = cache()
    held.put("a1", 1, 1)
    held.put("b1", 2, 2)
    held.retain([], 10, among=lambda key: key.startswith("a"))
    assert sorted(held) == ["b1"]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=30), st.randoms(use_true_random=False)
)
def test_the_order_of_arrival_does_not_matter(kinds, random):
    """A history of one object (put or delete at rising versions) ends the same, shuffled and repeated."""
    history = [(deleted, version) for version, (deleted, _) in enumerate(kinds, 1)]
    arrivals = history + random.choices(history, k=len(history))
    random.shuffle(arrivals)
    held, _ = cache()
    for deleted, version in arrivals:
        if deleted:
            held.remove("a", version)
        else:
            held.put("a", version, version)
    deleted, last = history[-1]
    assert held.get("a") == (None if deleted else last)


def test_a_list_of_a_part_drops_nothing_of_the_others():
    held, changes = cache()
    held.put("a1", 5, 51)
    held.put("a2", 5, 52)
    held.put("b1", 5, 53)
    part = held.part(lambda key: key.startswith("a"))
    assert part.put("a3", 6, 54)
    part.retain(["a1"], 7)
    assert sorted(held) == ["a1", "b1"]
    assert part.knows("b1", 5)
    assert changes[-2:] == [(52, None), (54, None)]

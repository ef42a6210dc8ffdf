"""merge_patch(old, new) applied to old gives new; RFC 7386's own algorithm is the judge."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rfuav_kube.patch import merge_patch

leaf = st.one_of(st.integers(0, 2), st.sampled_from(["", "x"]), st.booleans(), st.just([1]), st.just([]))
keys = st.sampled_from("abc")
trees = st.dictionaries(
    keys, leaf | st.dictionaries(keys, leaf | st.dictionaries(keys, leaf, max_size=2), max_size=3), max_size=3
)


def apply(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply(result.get(key), value)
    return result


@given(trees, trees)
def test_applied_it_gives_the_new_value(old, new):
    assert apply(old, merge_patch(old, new)) == new


@given(trees)
def test_nothing_changed_nothing_to_say(value):
    assert merge_patch(value, value) == {}


def test_it_says_only_what_changed():
    old = {"phase": "Queued", "queue": {"position": 1, "of": 2}, "failures": [1], "same": {"x": 1}}
    new = {"phase": "Running", "queue": {"position": 1, "of": 3}, "failures": [1, 2], "same": {"x": 1}}
    assert merge_patch(old, new) == {"phase": "Running", "queue": {"of": 3}, "failures": [1, 2]}
    assert merge_patch(old, {"phase": "Queued"}) == {"queue": None, "failures": None, "same": None}


def test_an_emptied_list_is_written():
    assert merge_patch({"a": [1]}, {"a": []}) == {"a": []}

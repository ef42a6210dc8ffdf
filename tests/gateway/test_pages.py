"""Pages by cursor: together they are the whole list, whatever comes and goes between two of them."""

import asyncio
import base64
from functools import partial

import msgspec
import pytest
from gateway.test_tasks_cache import body
from hypothesis import given
from hypothesis import strategies as st

from rfuav_gateway.cluster import pages
from rfuav_gateway.cluster.aside import Aside
from rfuav_gateway.cluster.pages import NoCursor
from rfuav_gateway.cluster.tasks import TYPES, Tasks, newest


def one_page(tasks: Tasks, kind, limit, before, *, status, search):
    if not search:
        return pages.page(tasks, "a", kind, limit, status=status, before=before)
    return pages.searched(tasks.copies("a", kind), limit, search=search, before=before)


def walk(tasks: Tasks, limit: int, **filters):
    """All pages, one after the other, through encoded cursors."""
    filters = {"status": None, "search": ""} | filters
    before, shown = None, {kind: [] for kind in TYPES}
    while True:
        found = {
            kind: one_page(tasks, kind, limit, None if before is None else before[kind], **filters)
            for kind in TYPES
            if before is None or kind in before
        }
        for kind, page in found.items():
            shown[kind] += [job.name for job in page.jobs]
        cursor = pages.encoded({kind: page.next for kind, page in found.items()})
        if cursor is None:
            return shown
        before = pages.decoded(cursor).before


@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.integers(0, 5), st.sampled_from(["Running", "Failed"])), max_size=30),
    st.integers(1, 7),
)
def test_pages_are_the_list_cut_in_parts(made: list, limit: int) -> None:
    tasks = Tasks()
    for number, (kind, age, phase) in enumerate(made):
        tasks.take(kind, body(f"j{number}", number + 1, age=age, phase=phase))
    for filters in ({}, {"status": "failed"}, {"search": "J1"}):
        shown = walk(tasks, limit, **filters)
        for kind in TYPES:
            jobs = list(tasks.newest("a", kind, status=filters.get("status")))
            assert shown[kind] == [job.name for job in jobs if filters.get("search", "").lower() in job.name]


def test_what_comes_and_goes_between_two_pages_neither_repeats_nor_hides_others() -> None:
    tasks = Tasks()
    for number in range(6):
        tasks.take("training", body(f"j{number}", number + 1, age=number))
    first = pages.page(tasks, "a", "training", 2, status=None, before=None)
    assert [job.name for job in first.jobs] == ["j5", "j4"]
    tasks.take("training", body("new", 10, age=9))
    tasks.gone(tasks.named("training", "a", "j4"))
    second = pages.page(tasks, "a", "training", 2, status=None, before=first.next)
    assert [job.name for job in second.jobs] == ["j3", "j2"]


NAIVE = base64.urlsafe_b64encode(msgspec.msgpack.encode([{"training": ["2026-01-01T00:00:00", "uid"]}])).decode()


@pytest.mark.parametrize("text", ["x", "%%%", "", base64.b64encode(b"\xc1").decode(), "A" * 300, "\u00e9", NAIVE])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(NoCursor):
        pages.decoded(text)


async def test_the_loop_goes_on_while_many_tasks_are_searched() -> None:
    """200,000 tasks, none of which is it; made by the loop, the search would end within its first wait."""
    tasks = Tasks()
    for number in range(1000):
        tasks.take("training", body(f"j{number}", number + 1, age=number))
    lists = [list(one) * 200 for one in tasks.copies("a", "training")]
    search = partial(pages.searched, lists, 10, search="nothing has this", before=None)
    searching = asyncio.create_task(Aside().walk(search))
    waits = 0
    while not searching.done():
        await asyncio.sleep(0.001)
        waits += 1
    assert searching.result().total == 0
    assert waits >= 3


async def test_copies_do_not_change() -> None:
    tasks = Tasks()
    tasks.take("training", body("one", 1))
    lists = tasks.copies("a", "training")
    tasks.take("training", body("two", 2))
    assert [job.name for job in newest(lists)] == ["one"]
    assert sorted(job.name for job in newest(tasks.copies("a", "training", ["pending"]))) == ["one", "two"]
    assert list(newest(tasks.copies("a", "training", ["failed"]))) == []

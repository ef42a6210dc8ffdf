"""The cache of jobs: found by id, in pages and counts, as a list that knows nothing would have them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rfuav_crds import contract
from rfuav_gateway.cluster.tasks import TYPES, Tasks, place
from rfuav_gateway.tasks import views

START = datetime(2026, 1, 1, tzinfo=UTC)
PHASES = [None, "Queued", "Admitted", "Running", "Suspended", "Succeeded", "Failed", "Cancelled"]


def body(name: str, version: int, *, namespace: str = "a", uid: str = "", age: int = 0, **more: Any) -> dict[str, Any]:
    annotations = {contract.ANNOTATION_TASK_ID: more["task_id"]} if more.get("task_id") else {}
    status = {"phase": more["phase"]} if more.get("phase") else {}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": (START + timedelta(seconds=age)).isoformat(),
            "annotations": annotations,
        },
        "spec": {"cancel": more.get("cancel", False)},
        "status": status,
    }


_steps = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(TYPES),
            "name": st.sampled_from("abcd"),
            "namespace": st.sampled_from("xy"),
            "phase": st.sampled_from(PHASES),
            "age": st.integers(0, 3),
            "task_id": st.sampled_from(["", "one", "two"]),
            "cancel": st.booleans(),
            "gone": st.booleans(),
        }
    ),
    max_size=40,
)


@given(_steps)
def test_pages_counts_and_ids_are_those_of_a_plain_list(steps: list[dict[str, Any]]) -> None:
    tasks, held = Tasks(), {}
    for version, step in enumerate(steps, 1):
        key = step["kind"], step["namespace"], step["name"]
        if step["gone"]:
            if (job := tasks.named(*key)) is not None:
                tasks.gone(job)
                held.pop(key)
            continue
        uid = f"uid-{'-'.join(key)}"
        age = held[key].created if key in held else None
        made = body(
            step["name"], version, uid=uid, **{k: step[k] for k in ("namespace", "phase", "age", "task_id", "cancel")}
        )
        if age is not None:
            made["metadata"]["creationTimestamp"] = age.isoformat()
        held[key] = tasks.take(step["kind"], made)
    for kind in TYPES:
        for namespace in "xyz":
            mine = [job for (k, n, _), job in held.items() if (k, n) == (kind, namespace)]
            newest = sorted(mine, key=place, reverse=True)
            assert list(tasks.newest(namespace, kind)) == newest
            assert tasks.count(namespace, kind) == len(mine)
            for word in ("pending", "queued", "running", "completed", "failed", "cancelled"):
                chosen = [job for job in newest if views.status_of(job) == word]
                assert tasks.page(namespace, kind, 100, status=word) == chosen
                assert tasks.count(namespace, kind, word) == len(chosen)
            for job in newest[:2]:
                assert tasks.page(namespace, kind, 100, before=place(job)) == newest[newest.index(job) + 1 :]
    for namespace in "xy":
        for job in held.values():
            found = {id(one) for one in tasks.found(namespace, job.task_id)}
            assert found == {id(j) for (_, n, _), j in held.items() if n == namespace and j.task_id == job.task_id}
    assert len(tasks) == len(held)


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    tasks = Tasks()
    tasks.take("training", body("a", 5, phase="Running"))
    assert tasks.take("training", body("a", 4, phase="Queued")).status.phase == "Running"


async def test_who_waits_for_a_job_hears_of_its_change_and_of_its_end() -> None:
    tasks = Tasks()
    first = tasks.take("training", body("a", 1))
    waiting = asyncio.create_task(tasks.changed(first))
    await asyncio.sleep(0)
    tasks.take("training", body("b", 2))
    await asyncio.sleep(0)
    assert not waiting.done()
    second = tasks.take("training", body("a", 3, phase="Running"))
    assert await waiting is second
    assert await tasks.changed(first) is second  # it has changed already
    waiting = asyncio.create_task(tasks.changed(second))
    await asyncio.sleep(0)
    tasks.gone(second)
    assert await waiting is None
    tasks.take("training", body("a", 9, uid="another"))
    assert await tasks.changed(second) is None
    assert tasks._news._waiting == {}

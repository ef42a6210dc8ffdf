"""The audit of the end-to-end run finds what it is there to find: one made-up sequence of events for every promise."""

from itertools import count
from typing import Any

import pytest
from cluster.audit import FOREIGN_PODS_ARE_KNOWN_AFTER, LISTED, Audit

from rfuav_crds import contract
from rfuav_crds.contract import GPU

NODE = {
    "metadata": {
        "name": "n1",
        "resourceVersion": "1",
        "labels": {f"{GPU}.count": "2", f"{GPU}.memory": "24576", f"{GPU}.replicas": "4"},
    },
    "status": {"allocatable": {GPU: "8"}},
}
POOL = {
    "metadata": {"name": "default", "resourceVersion": "2"},
    "spec": {
        "perGPU": [
            {"minMemory": "22Gi", "training": 1, "inference": 3},
            {"minMemory": 0, "training": 1, "inference": 1},
        ],
        "perNodeCPU": {"training": 2, "inference": 4},
    },
}


class World:
    """Says events to an audit in the order of their revisions."""

    def __init__(self) -> None:
        self.audit = Audit()
        self.revision = count(10)
        self.now = 0.0
        self.audit.event("Node", "ADDED", NODE, 0)
        self.audit.event("GPUPool", "ADDED", POOL, 0)

    def job(self, uid: str, *, kind: str = "TrainingJob", change: str = "MODIFIED", **status: Any) -> None:
        meta = {"namespace": "t", "name": uid, "uid": uid, "resourceVersion": str(next(self.revision))}
        self.audit.event(kind, change, {"metadata": meta, "status": status}, self.now)

    def pod(
        self,
        name: str,
        job: str | None,
        *,
        change: str = "ADDED",
        uid: str = "",
        kind: str = "TrainingJob",
        **more: Any,
    ) -> None:
        labels = (
            {contract.LABEL_KIND: kind, contract.LABEL_ATTEMPT: str(more.get("attempt", 1)), contract.LABEL_RANK: "0"}
            if job
            else {}
        )
        owners = [{"apiVersion": contract.API_VERSION, "kind": kind, "uid": job, "controller": True}] if job else []
        meta = {"namespace": "t", "name": name, "uid": uid or name, "labels": labels, "ownerReferences": owners}
        meta["resourceVersion"] = str(next(self.revision))
        affinity = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [affinity]}}
        spec = {
            "containers": [{"resources": {"limits": {GPU: str(more.get("gpus", 1))}}}],
            "affinity": {"nodeAffinity": required},
        }
        if more.get("bound", True):
            spec["nodeName"] = "n1"
        self.audit.event(
            "Pod", change, {"metadata": meta, "spec": spec, "status": {"phase": more.get("phase", "Running")}}, self.now
        )

    def admitted(self, job: str, pod: str, **more: Any) -> None:
        """As the operator does it: recorded first, then made."""
        kind = more.get("kind", "TrainingJob")
        self.job(
            job, kind=kind, phase="Admitted", attempt=more.get("attempt", 1), assignments=[{"pod": pod, "node": "n1"}]
        )
        self.pod(pod, job, **more)


@pytest.fixture
def world() -> World:
    return World()


def found(world: World) -> str:
    return "\n".join(world.audit.violations())


def test_a_full_node_and_a_retry_break_no_promise(world: World) -> None:
    for i in range(2):
        world.admitted(f"train{i}", f"train{i}-1")
    for i in range(6):
        world.admitted(f"infer{i}", f"infer{i}-1", kind="InferenceJob")
    world.pod("train0-1", "train0", change="MODIFIED", phase="Failed")
    world.job("train0", phase="Queued", attempt=1, progress={"percent": 50})
    world.admitted("train0", "train0-2", attempt=2)
    world.job("train0", phase="Running", attempt=2, progress={"percent": 30})
    world.job("train0", phase="Succeeded", attempt=2, progress={"percent": 100})
    world.job("train0", phase="Succeeded", attempt=2, message="said again")
    assert found(world) == ""
    assert world.audit.seen["job pod"] == 10
    assert [phase for _, phase, _ in world.audit.history["train0"]] == [
        "Admitted",
        "Queued",
        "Admitted",
        "Running",
        "Succeeded",
    ]


@pytest.mark.parametrize(
    ("kind", "gpus", "fits", "words"),
    [
        ("TrainingJob", 1, 2, "3 TrainingJob slots in use, at most 2"),
        ("InferenceJob", 1, 6, "7 InferenceJob slots in use, at most 6"),
        ("TrainingJob", 0, 2, "3 TrainingJob on CPU, at most 2"),
        ("InferenceJob", 0, 4, "5 InferenceJob on CPU, at most 4"),
    ],
)
@pytest.mark.parametrize("bound", [True, False])
def test_one_pod_more_than_the_tier_takes(
    world: World, *, kind: str, gpus: int, fits: int, words: str, bound: bool
) -> None:
    for i in range(fits):
        world.admitted(f"j{i}", f"j{i}-1", kind=kind, gpus=gpus, bound=bound)
    assert found(world) == ""
    world.admitted("last", "last-1", kind=kind, gpus=gpus, bound=bound)
    assert words in found(world)


@pytest.mark.parametrize(
    ("wait", "caught"), [(FOREIGN_PODS_ARE_KNOWN_AFTER, True), (FOREIGN_PODS_ARE_KNOWN_AFTER / 2, False)]
)
def test_pods_of_others_count_once_they_can_be_known(world: World, wait: float, caught: bool) -> None:
    world.pod("foreign", None, gpus=7)
    world.admitted("a", "a-1", kind="InferenceJob")
    world.now += wait
    world.admitted("b", "b-1", kind="InferenceJob")
    assert ("9 GPU slots asked for, it has 8" in found(world)) is caught


def test_a_foreign_pod_that_ended_no_longer_counts(world: World) -> None:
    world.pod("foreign", None, gpus=8)
    world.pod("foreign", None, gpus=8, change="MODIFIED", phase="Succeeded")
    world.now += 60
    world.admitted("a", "a-1")
    assert found(world) == ""


def test_a_pod_before_its_record(world: World) -> None:
    world.pod("a-1", "a")
    world.job("a", phase="Admitted", attempt=1, assignments=[{"pod": "a-1"}])
    assert "its job recorded it only at" in found(world)


def test_a_pod_that_no_status_ever_named(world: World) -> None:
    world.job("a", phase="Admitted", attempt=1, assignments=[{"pod": "another"}])
    world.pod("a-1", "a")
    assert "its job recorded it never" in found(world)


def test_a_pod_that_was_there_before_is_not_judged(world: World) -> None:
    world.pod("a-1", "a", change=LISTED)
    world.job("a", phase="Running", attempt=1, assignments=[{"pod": "a-1"}])
    world.pod("a-1", "a", change="MODIFIED")
    assert found(world) == ""


def test_a_new_attempt_beside_a_live_pod_of_the_old_one(world: World) -> None:
    world.admitted("a", "a-1", attempt=1)
    world.admitted("a", "a-2", attempt=2)
    assert "two live pods of one job and index: ['t/a-1', 't/a-2']" in found(world)


def test_one_attempt_made_twice(world: World) -> None:
    world.admitted("a", "a-1", uid="first")
    world.pod("a-1", "a", uid="first", change="DELETED")
    world.pod("a-1", "a", uid="second")
    assert "attempt 1, index 0 of its job was made twice" in found(world)


def test_an_assignment_to_a_node_that_is_not_there(world: World) -> None:
    world.audit.event("Node", "DELETED", NODE, 0)
    world.admitted("a", "a-1")
    assert "assigned to node n1, which is not there" in found(world)


@pytest.mark.parametrize("terminal", ["Succeeded", "Failed", "Cancelled"])
@pytest.mark.parametrize("after", ["Running", "Queued", "Succeeded", "Failed", None])
def test_a_finished_job_never_moves_again(world: World, terminal: str, after: str | None) -> None:
    world.job("a", phase=terminal, attempt=1)
    world.job("a", phase=after, attempt=1)
    assert (f"moved from {terminal} to {after}" in found(world)) is (after != terminal)


@pytest.mark.parametrize("field", ["percent", "epoch", "processed"])
def test_progress_that_goes_back_even_after_a_gap(world: World, field: str) -> None:
    world.job("a", phase="Running", attempt=1, progress={field: 40})
    world.job("a", phase="Running", attempt=1)
    world.job("a", phase="Running", attempt=1, progress={field: 39})
    assert f"progress.{field} went back from 40 to 39" in found(world)


def test_a_shard_that_is_tried_again_may_start_over(world: World) -> None:
    world.job(
        "a", kind="InferenceJob", phase="Running", attempt=1, shards={"attempts": {"0": 1}}, progress={"processed": 9}
    )
    world.job(
        "a", kind="InferenceJob", phase="Running", attempt=1, shards={"attempts": {"0": 2}}, progress={"processed": 2}
    )
    assert found(world) == ""


def test_an_attempt_that_goes_back(world: World) -> None:
    world.job("a", phase="Queued", attempt=2)
    world.job("a", phase="Queued", attempt=1)
    assert "attempt went back from 2 to 1" in found(world)


def test_the_pool_with_the_most_selector_terms_sets_the_limits(world: World) -> None:
    strict = {
        "metadata": {"name": "strict", "resourceVersion": "3"},
        "spec": {**POOL["spec"], "nodeSelector": {f"{GPU}.count": "2"}},
    }
    strict["spec"] = {**strict["spec"], "perGPU": [{"minMemory": 0, "training": 0, "inference": 1}]}
    world.audit.event("GPUPool", "ADDED", strict, 0)
    world.admitted("a", "a-1")
    assert "1 TrainingJob slots in use, at most 0" in found(world)

"""When a job would start, and that nothing of other namespaces is named."""

from datetime import UTC, datetime
from typing import Any

import pytest
from gateway.test_devices import job, node, on, snapshot
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rfuav_crds.contract import API_VERSION
from rfuav_crds.modes import Queueing
from rfuav_gateway.tasks import previews
from rfuav_gateway.tasks.words import CHINESE, ENGLISH, RefusedError
from rfuav_operator.core import scheduler
from rfuav_operator.core.guidance.previews import Preview, anonymous, preview
from rfuav_operator.core.model import (
    Job,
    JobStatus,
    Kind,
    NodeName,
    Phase,
    Pod,
    PodPhase,
    PoolSpec,
    Progress,
    Resources,
    Snapshot,
    Uid,
)
from rfuav_operator.core.quantity import Amounts

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def asked(**resources: Any) -> Job:
    """A new training of team-b."""
    new = replace(job("asked", phase=None), uid=Uid("asked"), namespace="team-b", created=NOW)
    return replace(new, spec=replace(new.spec, resources=Resources(**resources)))


def seen(state: Snapshot, new: Job | None = None) -> Preview:
    defaults = replace(state.defaults, image="trainer:1")
    return preview(replace(state, defaults=defaults), new or asked(), now=NOW, names=True)


def full(*more: Job, spec: PoolSpec | None = None, pods: tuple[Pod, ...] = (), second: str = "team-a") -> Snapshot:
    """A node of two GPUs, on which team-a and the `second` namespace train."""
    left = Progress(remaining_seconds=600, updated_at=NOW)
    running = [
        replace(one, status=replace(one.status, progress=left, attempt=1))
        for one in (job(f"t{n}", Kind.TRAINING, replace(on("a"), pod=f"t{n}-1")) for n in (1, 2))
    ]
    running[1] = replace(running[1], namespace=second)
    return snapshot([node("a")], *running, *more, spec=spec, pods=pods)


def queued(name: str, **resources: Any) -> Job:
    """A training of team-a that waits."""
    status = JobStatus(phase=Phase.QUEUED, queued_at=NOW, observed_generation=1)
    new = replace(job(name), status=status, created=datetime(2026, 1, 31, 11, tzinfo=UTC))
    return replace(new, spec=replace(new.spec, resources=Resources(**resources)))


def test_a_job_with_room_starts_now():
    found = seen(snapshot([node("a"), node("b")]))
    assert (found.starts_now, found.position, found.why) == (True, None, "")
    assert found.nodes in (("a",), ("b",))
    assert previews.story(found, ENGLISH) == f"Starts now on {found.nodes[0]}"


def test_a_job_without_room_has_a_place_a_time_and_a_reason():
    found = seen(full(queued("first"), queued("second")))
    assert (found.starts_now, found.position, found.of) == (False, 1, 3)  # team-a has all of the pool already
    story = previews.story(seen(full()), ENGLISH)
    assert story.startswith("Place 1 of 1, about 2026-01-31 12:10 UTC: needs 1 GPU; pool p has 0 of 2 training slots")
    assert previews.story(seen(full()), CHINESE).startswith("排队第 1 位，共 1 个, 约 2026-01-31 12:10 UTC 开始")


def test_a_preview_changes_nothing():
    state = full(queued("first"))
    before = dict(state.jobs)
    seen(state)
    assert state.jobs == before


def test_a_job_that_could_never_run_says_so():
    found = seen(full(), asked(gpu_memory="80Gi"))
    assert "none suitable" in found.why
    assert not found.starts_now


STRICT = PoolSpec(node_selector={"pool": "p"}, queueing=Queueing.STRICT_FIFO)


def pod(name: str, **more: Any) -> Pod:
    made = Pod(
        namespace="team-a",
        name=name,
        uid=Uid(name),
        node=NodeName("a"),
        phase=PodPhase.RUNNING,
        created=NOW,
        requests=Amounts(0, 100, 0, 1),
    )
    return replace(made, **more)


@pytest.mark.parametrize(
    "state",
    [
        full(queued("secret"), spec=STRICT, second="team-b"),
        full(pods=(pod("secret", claims_devices=True),)),
        full(pods=(pod("secret", unreadable="spec of secret: no quantity"),)),
    ],
    ids=["behind", "claims", "unreadable"],
)
def test_nothing_of_another_namespace_is_named(state: Snapshot):
    found = seen(state)
    state = replace(state, defaults=replace(state.defaults, image="trainer:1"), jobs={**state.jobs, "asked": asked()})
    assert "team-a/secret" in scheduler.turn(state, now=NOW, changed=["asked"]).status_of(asked()).message
    told = previews.story(found, ENGLISH) + found.reason
    assert "secret" not in told
    assert "team-a" not in told


NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(NAME, NAME, st.sampled_from(["behind {}, which", "pod {} on a", "kept for {}, which", "preempted by X {}, y"]))
def test_names_are_replaced_whatever_they_are(namespace: str, name: str, words: str):
    text = words.format(f"{namespace}/{name}")
    assert anonymous(text, namespace, names=True) == text
    for other in (
        anonymous(text, "own.namespace", names=True),
        anonymous(text, namespace, names=False),
    ):
        assert other == words.format("one that you may not see")


def test_the_own_namespace_is_named():
    text = "namespace team-b uses 8 of 8 in pool p; namespace team-a keeps 2"
    shown = anonymous(text, "team-b", names=False)
    assert shown == "namespace team-b uses 8 of 8 in pool p; another namespace keeps 2"


def test_a_manifest_gets_a_name_of_its_own():
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "InferenceJob",
        "metadata": {"name": "taken", "labels": {"a": "b"}, "finalizers": ["x"]},
        "spec": {"shards": 2},
    }
    kind, made = previews.checked(manifest, "team-b", name="preview-1")
    assert (kind, made["spec"]) == ("inference", {"shards": 2})
    assert made["metadata"] == {"labels": {"a": "b"}, "name": "preview-1", "namespace": "team-b"}


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ({"apiVersion": "v1", "kind": "Pod"}, "Pod of v1 is not a kind of task"),
        ({"apiVersion": API_VERSION, "kind": ["x"]}, "is not a kind of task"),
        (
            {"apiVersion": API_VERSION, "kind": "TrainingJob", "metadata": {"namespace": "team-a"}},
            "metadata.namespace is team-a, and the request is for team-b",
        ),
    ],
)
def test_what_is_no_job_of_the_namespace_is_refused(manifest: dict[str, Any], says: str):
    with pytest.raises(RefusedError, match=says):
        previews.checked(manifest, "team-b", name="preview-1")

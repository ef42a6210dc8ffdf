"""API objects as Kubernetes writes them, and what the core gets of them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from unit.core.builders import DEFAULTS, job
from unit.shell.bodies import A1, job_body, pod_body

from rfuav_crds import contract
from rfuav_kube import objects
from rfuav_kube.pods import PodObject
from rfuav_operator.core.job import podspec
from rfuav_operator.core.model import (
    Assignment,
    JobSpec,
    Kind,
    Landing,
    ModelSource,
    Namespace,
    Phase,
    PodPhase,
    Resources,
)
from rfuav_operator.core.quantity import Amounts
from rfuav_operator.shell.reading import nodes, ours, pods, policies, storage


def decoded(body: Any, kind: Any) -> Any:
    return msgspec.json.decode(json.dumps(body), type=kind)


def read_pod(**more: Any) -> Any:
    return pods.pod(decoded(pod_body(**more), PodObject))


def resources(gpus: str = "0", cpu: str = "0", **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}, "limits": {contract.GPU: gpus}}, **more}


META = {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 1}
ALWAYS = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "gpus", "cpu"),
    [
        ({"containers": [resources("1", "500m"), resources("1", "1")]}, 2, 1500),
        ({"containers": [resources("1", "1")], "initContainers": [resources("3", "100m")]}, 3, 1000),
        # a sidecar runs beside everything that starts after it
        (
            {
                "containers": [resources("1", "1")],
                "initContainers": [resources("1", "200m", **ALWAYS), resources("0", "1500m")],
            },
            2,
            1700,
        ),
        (
            {
                "containers": [resources("0", "1")],
                "initContainers": [resources("0", "3"), resources("0", "1", **ALWAYS)],
            },
            0,
            3000,
        ),
        ({"containers": [resources("0", "1")], "overhead": {"cpu": "250m"}}, 0, 1250),
        ({"containers": [resources("0", "1")], "resources": {"requests": {"cpu": "2"}}}, 0, 2000),
        ({"containers": [{}]}, 0, 0),
        ({"containers": [resources("0", "0.1")]}, 0, 100),
        ({"containers": [resources("0", "1m")] * 3}, 0, 3),
    ],
)
def test_effective_requests(spec, gpus, cpu):
    pod = read_pod(spec=spec)
    assert (pod.gpus, pod.requests.cpu_milli) == (gpus, cpu)


@pytest.mark.parametrize(
    ("spec", "owned", "claims"),
    [
        ({}, False, False),
        ({"resourceClaims": []}, False, False),
        ({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}, False, True),
        ({"resourceClaims": [{"name": "gpu", "resourceClaimName": "shared"}]}, False, True),
        ({"resourceClaims": [{"name": "nic", "resourceClaimName": "nic"}]}, True, False),  # which a webhook added
    ],
)
def test_resource_claims_of_others_are_seen(spec, owned, claims):
    pod = read_pod(spec=spec, **({} if owned else {"metadata": {"ownerReferences": []}}))
    assert pod.claims_devices is claims


@pytest.mark.parametrize(
    ("wanted", "has", "allocated", "counted"),
    [
        ("1", "4", "4", 4000),  # made smaller, and still large
        ("1", "4", "1", 4000),
        ("1", "", "4", 4000),
        ("4", "1", "1", 4000),  # made larger, and still small
        ("1", "1", "1", 1000),
        ("1", "", "", 1000),
    ],
)
@pytest.mark.parametrize("where", ["containers", "initContainers", "pod"])
def test_a_pod_that_is_resized_counts_as_the_larger(wanted, has, allocated, counted, where):
    asks = {"resources": {"requests": {"cpu": wanted}}}
    held: dict[str, Any] = {"resources": {"requests": {"cpu": has}}} if has else {}
    held |= {"allocatedResources": {"cpu": allocated}} if allocated else {}
    spec: dict[str, Any] = {"containers": [{"name": "main"}]}
    status: dict[str, Any] = held
    if where == "pod":
        spec |= asks
    else:
        spec[where] = [*spec.get(where, ()), {"name": "c", **asks, **(ALWAYS if where == "initContainers" else {})}]
        status = {f"{where.removesuffix('s')}Statuses": [{"name": "c", **held}]}
    assert read_pod(spec=spec, status=status).requests.cpu_milli == counted


@pytest.mark.parametrize(
    ("phase", "read", "lives"),
    [
        ("Running", PodPhase.RUNNING, True),
        ("Pending", PodPhase.PENDING, True),
        ("Odd", PodPhase.UNKNOWN, True),
        ("Failed", PodPhase.FAILED, False),
    ],
)
def test_a_pod_of_unknown_phase_may_run(phase, read, lives):
    pod = read_pod(phase=phase)
    assert (pod.phase, pod.live) == (read, lives)


@pytest.mark.parametrize(
    ("hard", "status", "expected", "used"),
    [
        ({"pods": "5"}, {}, {"pods": 5}, {}),  # not counted yet
        ({"pods": "5"}, {"hard": {"pods": "5"}, "used": {"pods": "2"}}, {"pods": 5}, {"pods": 2}),
        ({"pods": "3"}, {"hard": {"pods": "5"}, "used": {"pods": "2"}}, {"pods": 3}, {"pods": 2}),
        ({"pods": "9"}, {"hard": {"pods": "5"}, "used": {"pods": "2"}}, {"pods": 5}, {"pods": 2}),
        (
            {"pods": "5", "cpu": "1"},
            {"hard": {"pods": "5"}, "used": {"pods": "2"}},
            {"pods": 5, "cpu": 1000},
            {"pods": 2},
        ),
    ],
)
def test_a_resource_quota_counts_as_the_smaller_of_spec_and_status(hard, status, expected, used):
    body = {
        "metadata": {"name": "rq", "namespace": "team", "uid": "u", "resourceVersion": "1"},
        "spec": {"hard": hard},
        "status": status,
    }
    read = policies.resource_quota(decoded(body, policies.ResourceQuotaObject))
    assert (read.hard, read.used) == (expected, used)


def test_memory_units():
    spec = {
        "containers": [{"resources": {"requests": {"memory": "1Gi"}}}, {"resources": {"requests": {"memory": "500M"}}}]
    }
    assert read_pod(spec=spec).requests.memory == 1024**3 + 500 * 10**6


def test_a_pod_of_ours():
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
            }
        }
    }
    labels = {contract.LABEL_ATTEMPT: "3", contract.LABEL_SHARD: "7", contract.LABEL_KIND: "InferenceJob"}
    owner = {"apiVersion": contract.API_VERSION, "kind": "InferenceJob", "name": "a", "uid": "u1", "controller": True}
    pod = read_pod(
        name=A1.replace("-1", "-3-7"),
        metadata={"labels": labels, "ownerReferences": [owner]},
        spec={"affinity": affinity},
        status={"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]},
    )
    assert (pod.job_uid, pod.attempt, pod.index, pod.kind) == ("u1", 3, 7, Kind.INFERENCE)
    assert (pod.wanted_node, pod.node, pod.unschedulable, pod.bound_at) == ("n1", None, "no room", None)


def test_where_a_pod_may_land_that_waits_for_a_node():
    """What was written into its manifest is read from it again; once it has a node, it lands no more."""
    made = job()
    landing = podspec.landing(made, ["n2", "n1"], {"gpu": "a"})
    written = podspec.manifest(made, Assignment(pod="a-1", gpus=1), DEFAULTS, landing=landing)
    body = {**written, "metadata": {**written["metadata"], "uid": "p"}, "status": {"phase": "Pending"}}
    seen = pods.pod(decoded(stamped(body), PodObject))
    assert seen.landing == landing == Landing(pool="default", selector=(("gpu", "a"),), barred=frozenset({"n1", "n2"}))
    bound = {**body, "spec": {**body["spec"], "nodeName": "n3"}}
    seen = pods.pod(decoded(stamped(bound), PodObject))
    assert (seen.landing, seen.for_new_node) == (None, True)


def stamped(body):
    return {
        **body,
        "metadata": {**body["metadata"], "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "7"},
    }


def test_how_a_container_ended():
    ended = {
        "exitCode": 137,
        "reason": "OOMKilled",
        "message": "last words",
        "startedAt": "2026-01-01T00:00:05Z",
        "finishedAt": "2026-01-01T00:00:09Z",
    }
    pod = read_pod(
        phase="Failed",
        spec={"nodeName": "n1"},
        status={
            "reason": "Evicted",
            "message": "disk",
            "conditions": [
                {"type": "DisruptionTarget", "status": "True"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
            ],
            "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
        },
    )
    assert (pod.exit_code, pod.terminated_reason, pod.termination_message) == (137, "OOMKilled", "last words")
    assert (pod.reason, pod.message, pod.disrupted, pod.live) == ("Evicted", "disk", True, False)
    assert pod.bound_at == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert pod.finished_at == datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC)


def test_an_image_that_cannot_be_pulled():
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    pod = read_pod(status={"containerStatuses": [{"name": "trainer", "state": waiting}]})
    assert (pod.waiting_reason, pod.waiting_message) == ("ErrImagePull", "no such image")


# --- the trainer is found by its name


def ended(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "startedAt": "2026-01-01T00:00:05Z", **more}}


RUNS = {"running": {"startedAt": "2026-01-01T00:00:03Z"}}


def test_a_sidecar_that_sorts_before_the_trainer_says_nothing_about_its_end():
    both = [{"name": "istio-proxy", "state": ended(0)}, {"name": "trainer", "state": ended(3, message="no data")}]
    pod = read_pod(phase="Failed", status={"containerStatuses": both})
    assert (pod.exit_code, pod.termination_message, pod.beside) == (3, "no data", ())


def test_the_trainer_has_ended_although_a_sidecar_runs_on():
    both = [{"name": "istio-proxy", "state": RUNS}, {"name": "trainer", "state": ended(0)}]
    spec = {"containers": [{"name": "trainer"}, {"name": "istio-proxy"}]}
    pod = read_pod(phase="Running", spec=spec, status={"containerStatuses": both})
    assert (pod.exit_code, pod.live, pod.ended, pod.beside) == (0, True, True, ())


@pytest.mark.parametrize(
    ("containers", "init", "ended_too"),
    [
        (["trainer"], [], []),
        (["trainer"], [{"name": "istio-proxy", "restartPolicy": "Always"}], []),
        (["trainer", "istio-proxy"], [], ["istio-proxy"]),
    ],
)
def test_the_kubelet_ends_the_pod_itself_when_nothing_runs_on(containers, init, ended_too):
    spec = {"containers": [{"name": name} for name in containers], "initContainers": init}
    said = [{"name": name, "state": ended(0)} for name in ["trainer", *ended_too]]
    sidecars = [{"name": c["name"], "state": RUNS, "started": True} for c in init]
    pod = read_pod(phase="Running", spec=spec, status={"containerStatuses": said, "initContainerStatuses": sidecars})
    assert (pod.exit_code, pod.ended) == (0, False)


def test_the_trainer_runs_although_a_sidecar_keeps_the_phase_at_pending():
    stuck = {"waiting": {"reason": "ErrImagePull", "message": "i/o timeout"}}
    both = [{"name": "istio-proxy", "state": stuck}, {"name": "trainer", "state": RUNS}]
    pod = read_pod(status={"containerStatuses": both})
    assert (pod.started, pod.ended, pod.waiting_reason) == (True, False, "")
    assert [(b.title, b.waiting_reason) for b in pod.beside] == [("sidecar `istio-proxy`", "ErrImagePull")]


@pytest.mark.parametrize("statuses", [None, [], [{"name": "istio-proxy", "state": ended(0)}]])
def test_a_pod_without_a_word_of_the_trainer(statuses):
    """Evicted before it started, say."""
    pod = read_pod(phase="Failed", status={"reason": "Evicted", "containerStatuses": statuses})
    assert (pod.exit_code, pod.started_at, pod.reason, pod.ended) == (None, None, "Evicted", True)


def test_init_containers_in_trouble():
    spec = {
        "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}, {"name": "fetch-ca"}],
        "containers": [],
    }
    crashes = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    status = {
        "initContainerStatuses": [
            {"name": "istio-proxy", "state": crashes, "lastState": ended(1, message="no certificate")},
            {"name": "fetch-ca", "state": ended(1, reason="Error")},
        ]
    }
    sidecar, init = read_pod(spec=spec, status=status).beside
    assert (sidecar.title, sidecar.waiting_reason, sidecar.exit_code, sidecar.message) == (
        "sidecar `istio-proxy`",
        "CrashLoopBackOff",
        1,
        "no certificate",
    )
    assert (init.title, init.exit_code, init.reason) == ("init container `fetch-ca`", 1, "Error")


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("fetch-ca", {"state": RUNS}, ["init container `fetch-ca`"]),
        ("fetch-ca", {"state": ended(0)}, []),
        ("istio-proxy", {"state": RUNS, "started": False}, ["sidecar `istio-proxy`"]),
        ("istio-proxy", {"state": RUNS, "started": True}, []),
        ("fetch-ca", {"state": {"waiting": {"reason": "PodInitializing"}}}, []),
    ],
)
def test_what_keeps_the_trainer_waiting(name, status, told):
    spec = {
        "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}, {"name": "fetch-ca"}],
        "containers": [],
    }
    pod = read_pod(spec=spec, status={"initContainerStatuses": [{"name": name, **status}]})
    assert [b.title for b in pod.beside if b.running] == told
    assert len(pod.beside) == len(told)


def test_volumes_that_are_not_ready():
    since = {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": "2026-01-01T00:00:01Z"}
    assert read_pod(status={"conditions": [since]}).setting_up_since == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert read_pod(status={"conditions": [since | {"status": "True"}]}).setting_up_since is None


@pytest.mark.parametrize("offset", ["2025-12-31T20:00:00Z", "2026-01-01T00:00:00+09:00", "0001-01-01T00:00:00Z"])
def test_clocks_of_nodes_and_schedulers_that_are_behind(offset):
    """Nothing happened to a pod before it was made: it has its whole time to be bound and to start."""
    conditions = [
        {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": offset},
        {"type": "PodScheduled", "status": "False", "lastTransitionTime": offset},
    ]
    ended = {"terminated": {"exitCode": 0, "startedAt": offset, "finishedAt": offset}}
    pod = read_pod(status={"conditions": conditions, "containerStatuses": [{"name": "trainer", "state": ended}]})
    found = {pod.setting_up_since, pod.unschedulable_since, pod.started_at, pod.finished_at}
    assert found == {pod.created}
    conditions[1]["status"] = "True"
    assert read_pod(status={"conditions": conditions}).bound_at == pod.created


OWNER = {"apiVersion": contract.API_VERSION, "kind": "TrainingJob", "name": "a", "uid": "u1", "controller": True}
LABELS = {
    contract.LABEL_KIND: "TrainingJob",
    contract.LABEL_ATTEMPT: "1",
    contract.LABEL_RANK: "0",
    contract.LABEL_JOB_UID: "u1",
}


@pytest.mark.parametrize(
    ("name", "owner", "labels"),
    [
        (A1, {"apiVersion": "apps/v1", "kind": "ReplicaSet"}, {}),
        (A1, {"apiVersion": "rfuav.io/v1", "controller": True}, {}),
        (A1, {"kind": "GPUPool"}, {}),
        (A1, {"kind": "InferenceJob"}, {}),
        (A1, {"controller": False}, {}),
        (A1, {"uid": "u2"}, {}),
        (A1, {"name": "b"}, {}),
        ("a-1", {}, {}),
        (A1, {}, {contract.LABEL_ATTEMPT: "2"}),
        (f"{A1}-1", {}, {}),
        (A1, {}, {contract.LABEL_KIND: ""}),
    ],
)
def test_a_pod_is_of_a_job_only_if_owner_labels_and_name_agree(name, owner, labels):
    metadata = {"ownerReferences": [OWNER | owner], "labels": LABELS | labels}
    assert read_pod(name=name, owner=None, metadata=metadata).job_uid is None


@pytest.mark.parametrize(("name", "labels"), [(A1, {}), (f"{A1}-3", {contract.LABEL_RANK: "3"})])
def test_a_pod_that_a_job_made(name, labels):
    metadata = {"ownerReferences": [OWNER], "labels": LABELS | labels}
    assert read_pod(name=name, owner=None, metadata=metadata).job_uid == "u1"


def test_of_an_annotation_of_any_length_little_is_kept():
    pod = read_pod(metadata={"annotations": {contract.ANNOTATION_OUTPUT: "x" * 2**18, "other": "y" * 2**18}})
    assert len(pod.output) == 1024


def node(
    allocatable: dict[str, str] | None,
    labels: dict[str, str] | None = None,
    ready: str = "True",
    capacity: dict[str, str] | None = None,
) -> Any:
    body = {
        "metadata": {"name": "n", "uid": "n", "resourceVersion": "1", "labels": labels or {}},
        "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": allocatable,
            "capacity": capacity,
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }
    return nodes.node(decoded(body, nodes.NodeObject))


def test_a_time_sliced_node():
    found = node(
        {contract.GPU: "8", "cpu": "31900m", "memory": "1Gi", "pods": "110"},
        {"nvidia.com/gpu.count": "2", "nvidia.com/gpu.memory": "24576", "nvidia.com/gpu.replicas": "4"},
    )
    assert (found.gpu_slots, found.gpus, found.gpu_replicas, found.gpu_memory_mib) == (8, 2, 4, 24576)
    assert (found.gpu_unknown, found.gpu_problem) == ("", "")
    assert (found.allocatable, found.ready) == (Amounts(8, 31900, 1024**3, 110), True)
    assert found.taints[0].key == "k"


def test_a_node_without_feature_discovery():
    found = node({contract.GPU: "4"})
    assert (found.gpu_slots, found.gpus, found.gpu_memory_mib) == (4, 0, None)
    assert found.gpu_unknown == "no labels nvidia.com/gpu.*"


def test_slots_of_unhealthy_gpus_are_not_allocatable():
    found = node(
        {contract.GPU: "4"},
        {"nvidia.com/gpu.count": "2", "nvidia.com/gpu.memory": "24576", "nvidia.com/gpu.replicas": "4"},
        capacity={contract.GPU: "8"},
    )
    assert (found.gpu_capacity, found.gpu_slots, found.gpus) == (8, 4, 1)


def test_what_a_node_does_not_say_that_it_offers_it_does_not_offer():
    found = node(None, capacity={contract.GPU: "8", "cpu": "32", "memory": "1Gi", "pods": "110"})
    assert (found.allocatable, found.gpus) == (Amounts(), 0)


@pytest.mark.parametrize(
    ("resource", "words"),
    [("nvidia.com/gpu.shared", "renameByDefault"), ("nvidia.com/mig-1g.5gb", "MIG"), (contract.GPU, "")],
)
def test_gpus_that_are_not_handed_out_say_why(resource, words):
    problem = node({resource: "4"}).gpu_problem
    assert words in problem
    assert bool(problem) == bool(words)


def test_a_node_that_is_being_deleted():
    read = {"metadata": {**META, "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {}}
    assert nodes.node(decoded(read, nodes.NodeObject)).deleting


@pytest.mark.parametrize("label", ["InferenceJob", "", "anything", None])
def test_a_pod_counts_by_the_kind_of_its_owner_whatever_its_label_says(label):
    """Anybody who may write pods may change a label: that must not free the GPU of a training."""
    body = pod_body()
    body["metadata"]["labels"].pop(contract.LABEL_KIND)
    if label is not None:
        body["metadata"]["labels"][contract.LABEL_KIND] = label
    read = pods.pod(decoded(body, PodObject))
    assert (read.job_uid, read.kind) == (None, Kind.TRAINING)


def test_an_owner_that_is_no_controller_owns_nothing():
    body = pod_body()
    body["metadata"]["ownerReferences"][0].pop("controller")
    read = pods.pod(decoded(body, PodObject))
    assert (read.job_uid, read.kind) == (None, Kind.TRAINING)  # by its label


@pytest.mark.parametrize(
    "conditions", [[], [{"type": "Ready", "status": "Unknown"}], [{"type": "Other", "status": "True"}]]
)
def test_a_node_whose_readiness_is_not_known_is_not_ready(conditions):
    read = {"metadata": META, "status": {"conditions": conditions}}
    assert not nodes.node(decoded(read, nodes.NodeObject)).ready


def test_a_job():
    body = job_body(
        spec={"resources": {"gpus": 2, "memory": "16Gi"}, "priorityClassName": "x"},
        status={"phase": "Running", "attempt": 2},
    )
    job = ours.job(Kind.TRAINING, body)
    assert (job.name, job.uid, job.spec.resources.gpus, job.status.phase, job.status.attempt) == (
        "a",
        "u1",
        2,
        Phase.RUNNING,
        2,
    )
    assert job.raw_spec is body["spec"]


def test_a_spec_that_cannot_be_read_is_the_job_s_problem():
    job = ours.job(Kind.TRAINING, job_body(spec={"backoffLimit": "many", "cancel": True}))
    assert job.spec.cancel
    assert any("backoffLimit" in problem for problem in job.problems)


def test_what_can_be_read_of_a_spec_is_kept():
    spec = {
        "backoffLimit": 10**6,
        "uncountedLimit": float("inf"),
        "shards": 4,
        "parallelism": "two",
        "model": {"fromTrainingJob": "t"},
        "pool": "big",
        "resources": {"gpus": 100, "cpu": "4 cores", "memory": "16Gi"},
    }
    job = ours.job(Kind.INFERENCE, job_body(kind="InferenceJob", spec=spec))
    assert job.problems
    assert job.spec == JobSpec(
        backoff_limit=100,
        shards=4,
        model=ModelSource(from_training_job="t"),
        pool="big",
        resources=Resources(gpus=64, memory="16Gi"),
    )


@pytest.mark.parametrize(
    "status",
    [
        {"attempt": "two"},
        {"shards": {"total": 3, "completed": "0-99999999999"}},
        {"shards": {"completed": "x"}},
        {"phase": "Exploded"},
        "Running",
    ],
)
def test_a_job_whose_status_cannot_be_read_is_set_aside(status):
    job = ours.job(Kind.TRAINING, job_body(status=status))
    assert "status cannot be read" in job.set_aside
    assert job.name == "a"


def test_of_a_status_that_cannot_be_read_the_room_is_kept():
    held = [{"pod": "a-1", "node": "n1", "gpus": 2}, {"pod": 5}]
    job = ours.job(Kind.TRAINING, job_body(status={"phase": "Exploded", "assignments": held, "reason": "x"}))
    assert job.set_aside
    assert job.status.assignments == (Assignment(pod="a-1", node="n1", gpus=2),)
    assert (job.status.phase, job.status.reason) == (Phase.ADMITTED, "x")


@pytest.mark.parametrize(
    "spec",
    [
        {"resources": {"gpus": 10**9}},
        {"activeDeadlineSeconds": 10**15},
        {"ttlSecondsAfterFinished": -1},
        {"resources": {"memory": "1e999999"}},
        {"resources": {"cpu": "-1"}},
        {"resources": {"cpuLimit": "../.."}},
        {"nodes": 10**9},
        {"resources": []},
        {"podTemplate": {"env": [{"name": "A", "value": "\ud83d"}]}},
        {"podTemplate": {"volumeMounts": [{}]}, "output": {"uri": "file:///x"}},
        {"podTemplate": {"volumeMounts": 5}, "output": {"uri": "file:///x"}},
    ],
)
def test_a_spec_beyond_its_crd_is_the_job_s_problem(spec):
    job = ours.job(Kind.TRAINING, job_body(spec=spec))
    assert any("spec" in problem for problem in job.problems)
    assert not job.set_aside


def test_a_spec_is_read_again_only_when_it_changed():
    first = ours.job(Kind.TRAINING, job_body(spec={"resources": {"cpu": "2"}, "cancel": True}))

    def then(spec, generation=1):
        body = job_body(version=77, spec=spec, status={"phase": "Running"})
        body["metadata"]["generation"] = generation
        return ours.job(Kind.TRAINING, body, before={first.uid: first}.get)

    same = then({"resources": {"cpu": "2"}, "cancel": True})
    assert same.spec is first.spec
    assert same.raw_spec is first.raw_spec
    assert (same.resource_version, same.status.phase) == ("77", "Running")
    for generation in (1, 2):  # whatever the generation says
        changed = then({"resources": {"cpu": "4"}}, generation).spec
        assert (changed.resources.cpu, changed.cancel) == ("4", False)
    assert then({"resources": {"cpu": "2"}, "cancel": True}, 2).generation == 2


@pytest.mark.parametrize("value", ["\t\r\x1b", "\u202e", "x" * 5000])
def test_the_texts_of_a_spec_are_the_user_s_own(value):
    spec = {"podTemplate": {"env": [{"name": "A", "value": value}]}}
    assert ours.job(Kind.TRAINING, job_body(spec=spec)).problems == ()


@pytest.mark.parametrize(
    "spec",
    [
        5,
        {"stopPolicy": "Paused"},
        {"perGPU": [{"minMemory": "1e999999"}]},
        {"perGPU": [{"training": 10**6}]},
        {"perGPU": [{"minMemory": "much"}]},  # as an older schema may have stored it
        {"gpuSharing": {"replicas": 2, "memory": "much"}},
        {"gpuSharing": {"replicas": 0, "memory": "24Gi"}},
        {"gpuSharing": {"replicas": 4}},
        {"preemption": {"minRuntimeSeconds": 10**12}},
    ],
)
def test_a_pool_that_cannot_be_read_admits_nothing(spec):
    pool = ours.pool({"metadata": META, "spec": spec})
    assert pool.spec.stop_policy == "Hold"
    assert "cannot be read" in pool.unreadable
    assert "spec cannot be read" in pool.problems[0]


@pytest.mark.parametrize("spec", [5, {"stopPolicy": "Paused"}, {"pools": [{"name": "p", "gpus": {"nominal": 10**9}}]}])
def test_a_quota_that_cannot_be_read_holds_its_namespace(spec):
    quota = ours.quota({"metadata": META, "spec": spec, "status": 5})
    assert quota.spec.stop_policy == "Hold"
    assert "cannot be read" in quota.unreadable


def leniently(body: dict[str, Any], kind: Any) -> Any:
    return objects.leniently(json.dumps(body).encode(), kind)


def test_what_can_be_read_of_a_pod_is_kept():
    body = pod_body(
        spec={"nodeName": "n1", "containers": 5, "overhead": {"cpu": 1}},
        status={
            "conditions": [{"type": 1}],
            "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 3}}}],
        },
        metadata={"annotations": {"a": 5}},
    )
    pod = pods.pod(*leniently(body, PodObject))
    assert (pod.name, pod.uid, pod.node, pod.job_uid, pod.exit_code) == (A1, "p1", "n1", "u1", 3)
    assert pod.unreadable
    assert (pod.gpus, pod.requests.cpu_milli) == (0, 0)


@pytest.mark.parametrize("quantity", ["1e999999", "1e4294967296", "-1", "abc", "9" * 40])
def test_a_pod_whose_request_cannot_be_read_says_so(quantity):
    pod = read_pod(spec={"nodeName": "n1", "containers": [resources("1", quantity)]})
    assert "quantity" in pod.unreadable or "is negative" in pod.unreadable or "out of range" in pod.unreadable


@pytest.mark.parametrize(
    "status",
    [
        {"allocatable": {"cpu": "1e999999", contract.GPU: "8"}},
        {"allocatable": {contract.GPU: "-8"}},
        {"allocatable": {"nvidia.com/mig-1g": "1e4294967296"}},
        {"allocatable": 5, "capacity": {contract.GPU: "8", "cpu": "64"}},
        {"conditions": "Ready"},
    ],
)
def test_a_node_that_cannot_be_read_stays_known_and_offers_nothing(status):
    body = {"metadata": {**META, "labels": {"zone": "a"}}, "spec": {"unschedulable": False}, "status": status}
    found = nodes.node(*leniently(body, nodes.NodeObject))
    assert found.unreadable
    assert (found.name, found.allocatable, found.gpus) == ("a", Amounts(), 0)
    assert found.labels == {"zone": "a"}


@pytest.mark.parametrize(
    "body", [{"status": {"hard": {"pods": "many"}}}, {"status": {"hard": 5}}, {"spec": {"hard": {"cpu": "1e99999"}}}]
)
def test_a_resource_quota_that_cannot_be_read_says_so(body):
    assert policies.resource_quota(*leniently({"metadata": META, **body}, policies.ResourceQuotaObject)).unreadable


def test_without_a_name_nothing_can_be_kept():
    with pytest.raises(objects.DecodeError):
        leniently({"metadata": {"uid": "u", "resourceVersion": "1"}}, nodes.NodeObject)
    with pytest.raises(objects.DecodeError):
        objects.leniently(b'{"metadata":' + b"[" * 100_000, nodes.NodeObject)


def test_a_status_that_an_older_version_stored_is_made_to_fit_and_remembered_as_it_is():
    written = {
        "phase": "Running",
        "progress": {"remainingSeconds": 300_000_000_000, "updatedAt": "9999-12-31T23:59:59Z"},
    }
    job = ours.job(Kind.TRAINING, job_body(status=written))
    assert job.status.progress.remaining_seconds == 315_360_000
    assert job.status.progress.updated_at.year == 2200
    assert job.stored == written
    assert ours.job(Kind.TRAINING, job_body(status={"phase": "Running"})).stored is None


@pytest.mark.parametrize(("instant", "year"), [("0001-01-01T00:00:00Z", 2026), ("9999-12-31T23:59:59-23:59", 2200)])
def test_instants_are_moved_to_where_seconds_can_be_added(instant, year):
    ended = read_pod(
        status={
            "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1, "finishedAt": instant}}}]
        }
    )
    assert ended.finished_at.year == year
    assert ended.finished_at.tzinfo is not None


def test_what_is_read_of_a_pools_limits():
    body = {
        "metadata": {"name": "p", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {
            "priorityClasses": [
                {
                    "names": ["urgent"],
                    "ceiling": -5,
                    "namespaceSelector": {
                        "matchLabels": {"team": "a"},
                        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"]}],
                    },
                }
            ],
            "defaultQuota": {"gpus": {"nominal": 1, "borrowingLimit": 2}, "maxTrainingJobs": 3},
        },
    }
    spec = ours.pool(body).spec
    (access,) = spec.priority_classes
    assert (access.names, access.ceiling) == (("urgent",), -5)
    assert access.namespace_selector.selects(Namespace(name="x", labels={"team": "a", "tier": "gold"}))
    assert not access.namespace_selector.selects(Namespace(name="x", labels={"team": "a"}))
    assert (spec.default_quota.gpus.borrowing_limit, spec.default_quota.max_training_jobs) == (2, 3)
    assert ours.pool(body | {"spec": {}}).spec.priority_classes is None


def test_a_pool_that_cannot_be_read_keeps_its_nodes_and_takes_nothing_new():
    body = {"metadata": {"name": "p", "uid": "u", "resourceVersion": "1", "generation": 1}}
    held = ours.pool(body | {"spec": {"nodeSelector": {"lab": "a"}, "queueing": {}}})
    assert held.problems
    assert (held.spec.node_selector, held.spec.stop_policy) == ({"lab": "a"}, "Hold")


# --- claims and volumes


def read_claim(status: Any = None, **spec: Any) -> Any:
    meta = {"name": "data", "namespace": "ns", "uid": "c", "resourceVersion": "3"}
    body = {"metadata": meta, "spec": spec, "status": status or {"phase": "Pending"}}
    return storage.claim(decoded(body, storage.ClaimObject))


def test_a_claim_that_is_bound_has_the_modes_of_its_volume():
    bound = {"phase": "Bound", "accessModes": ["ReadWriteOnce", "ReadWriteMany"]}
    read = read_claim(bound, volumeName="pv", accessModes=["ReadWriteOnce"])
    assert (read.volume, read.phase, read.is_of_one_node) == ("pv", "Bound", False)


def test_a_claim_that_is_not_bound_has_the_modes_that_it_asks_for():
    read = read_claim(accessModes=["ReadWriteOnce"])
    assert (read.volume, read.phase, read.is_of_one_node, read.is_of_one_pod) == ("", "Pending", True, False)
    assert read_claim(accessModes=["ReadWriteOncePod"]).is_of_one_pod
    assert read_claim().is_of_one_node  # nothing is known of it


def test_a_volume_with_node_affinity_and_zones():
    term = {
        "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}],
        "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n2"]}],
    }
    labels = {"topology.kubernetes.io/zone": "a__b", "failure-domain.beta.kubernetes.io/region": "r"}
    body = {
        "metadata": {"name": "pv", "uid": "v", "resourceVersion": "3", "labels": labels},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, "capacity": {"storage": "1Gi"}},
    }
    read = storage.volume(decoded(body, storage.VolumeObject))
    assert read.terms is not None
    assert [(r.key, r.operator, r.values) for r in read.terms[0].match_expressions] == [("zone", "In", ("a",))]
    assert [r.values for r in read.terms[0].match_fields] == [("n2",)]
    assert read.zones == (
        ("topology.kubernetes.io/zone", frozenset({"a", "b"})),
        ("topology.kubernetes.io/region", frozenset({"r"})),
    )
    bare = {"metadata": {**body["metadata"], "labels": None}, "spec": {}}
    assert storage.volume(decoded(bare, storage.VolumeObject)).is_anywhere


def test_the_claims_of_a_pod():
    volumes = [{"name": "x", "persistentVolumeClaim": {"claimName": "b"}}, {"name": "y", "emptyDir": {}}]
    volumes.append({"name": "z", "persistentVolumeClaim": {"claimName": "a", "readOnly": True}})
    assert read_pod(spec={"volumes": volumes}).claims == ("a", "b")


def test_the_claims_of_a_job():
    read = ours.job(Kind.TRAINING, job_body(spec={"output": {"uri": "pvc://models/a"}}))
    assert read.claims == ("models",)

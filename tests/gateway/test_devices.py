"""The nodes of a pool as devices: numbers, limits, what runs where, sums of CPUs."""

from dataclasses import replace
from datetime import UTC, datetime

from msgspec.structs import replace as changed

from rfuav_gateway.tasks import devices
from rfuav_gateway.tasks.devices import Counts, OnDevice
from rfuav_operator.core.model import (
    Assignment,
    Defaults,
    GpuSharing,
    GpuTier,
    Job,
    JobSpec,
    JobStatus,
    Kind,
    Node,
    NodeName,
    PerNodeCpu,
    Phase,
    Pod,
    PodPhase,
    Pool,
    PoolSpec,
    Snapshot,
    Uid,
)
from rfuav_operator.core.quantity import Amounts

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def node(name: str, *, gpus: int = 2, replicas: int = 4, memory: int = 24576, **more: object) -> Node:
    slots = gpus * replicas
    made = Node(
        name=NodeName(name),
        labels={"pool": "p", "nvidia.com/gpu.product": "RTX-4090-SHARED", "nvidia.com/gpu.compute.major": "8"},
        gpu_capacity=slots,
        gpus=gpus,
        gpu_replicas=replicas,
        gpu_memory_mib=memory,
        allocatable=Amounts(slots, 32_000, 128 * 2**30, 110),
    )
    return changed(made, **more)


def job(name: str, kind: Kind = Kind.TRAINING, *where: Assignment, phase: Phase | None = Phase.RUNNING) -> Job:
    return Job(
        kind=kind,
        namespace="team-a",
        name=name,
        uid=Uid(name),
        resource_version="1",
        generation=1,
        created=NOW,
        deleting=False,
        spec=JobSpec(pool="p"),
        raw_spec={},
        status=JobStatus(phase=phase, assignments=where),
    )


def on(node_name: str, *, gpus: int = 1, uuid: str = "") -> Assignment:
    return Assignment(pod="x", node=node_name, gpus=gpus, gpu_uuid=uuid)


def snapshot(nodes: list[Node], *jobs: Job, spec: PoolSpec | None = None, pods: tuple[Pod, ...] = ()) -> Snapshot:
    foreign: dict[NodeName, tuple[Pod, ...]] = {}
    for pod in pods:
        assert pod.node is not None
        foreign[pod.node] = (*foreign.get(pod.node, ()), pod)
    pool = Pool(
        name="p", uid=Uid("p"), resource_version="1", generation=1, spec=spec or PoolSpec(node_selector={"pool": "p"})
    )
    return Snapshot(
        nodes={one.name: one for one in nodes},
        jobs={one.uid: one for one in jobs},
        pools={"p": pool},
        foreign=foreign,
        defaults=Defaults(),
    )


def test_gpus_are_numbered_by_the_name_of_their_node_then_on_it():
    nodes = [node("b"), node("a", gpus=1), node("elsewhere", labels={})]
    found = devices.fleet(snapshot(nodes), "p")
    assert [(one.name, one.node, one.index) for one in found.devices] == [
        ("cuda:0", "a", 0),
        ("cuda:1", "b", 0),
        ("cuda:2", "b", 1),
    ]


def test_an_unhealthy_gpu_keeps_its_number():
    sick = node("a", gpus=1, gpu_capacity=8)
    found = devices.fleet(snapshot([sick, node("b")]), "p")
    assert [(one.node, one.index) for one in found.devices] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_limits_are_those_of_the_tier_and_a_gpu_that_is_not_shared_takes_one():
    spec = PoolSpec(
        node_selector={"pool": "p"},
        per_gpu=(GpuTier(min_memory="22Gi", training=1, inference=3), GpuTier(training=1, inference=1)),
        per_node_cpu=PerNodeCpu(training=2, inference=5),
    )
    nodes = [node("a", gpus=1), node("b", gpus=1, memory=8192), node("c", gpus=1, replicas=1)]
    found = devices.fleet(snapshot(nodes, spec=spec), "p")
    assert found.limits() == {
        "cuda:0": Counts(1, 3),
        "cuda:1": Counts(1, 1),
        "cuda:2": Counts(1, 1),
        "cpu": Counts(6, 15),
    }


def test_a_pool_without_labels_of_feature_discovery_has_the_gpus_that_it_declares():
    bare = node("a", gpus=0, gpu_capacity=8, gpu_replicas=0, gpu_unknown="no labels", labels={"pool": "p"})
    bare = changed(bare, allocatable=Amounts(8, 32_000, 2**37, 110))
    spec = PoolSpec(node_selector={"pool": "p"}, gpu_sharing=GpuSharing(replicas=4, memory="24Gi"))
    assert devices.fleet(snapshot([bare]), "p").devices == ()
    assert [one.memory_gib for one in devices.fleet(snapshot([bare], spec=spec), "p").devices] == [24, 24]


def test_tasks_fill_the_devices_of_their_node_in_turn_and_share_one_that_they_reported():
    jobs = [
        job("t1", Kind.TRAINING, on("a")),
        job("t2", Kind.TRAINING, on("a")),
        job("i1", Kind.INFERENCE, on("a", uuid="GPU-x")),
        job("i2", Kind.INFERENCE, on("a", uuid="GPU-x")),
        job("i3", Kind.INFERENCE, on("a")),
        job("cpu", Kind.INFERENCE, on("a", gpus=0)),
        job("waits", phase=Phase.QUEUED),
        job("new", Kind.INFERENCE, phase=None),
        job("done", Kind.TRAINING, on("a"), phase=Phase.SUCCEEDED),
    ]
    found = devices.fleet(snapshot([node("a")], *jobs), "p")
    names = {name: sorted(one.job for one in tasks) for name, tasks in found.tasks().items()}
    assert names == {"cuda:0": ["i1", "i2", "t2"], "cuda:1": ["i3", "t1"], "cpu": ["cpu"]}
    assert devices.count(found.devices[0].tasks) == Counts(1, 2)
    assert found.waiting == Counts(1, 1)


def test_a_task_of_several_gpus_is_on_each_of_them():
    found = devices.fleet(snapshot([node("a", gpus=4, replicas=1)], job("t", Kind.TRAINING, on("a", gpus=3))), "p")
    held = OnDevice("training", "team-a", "t")
    assert [one.tasks for one in found.devices] == [(held,), (held,), (held,), ()]


def test_cpus_are_summed_from_what_nodes_offer_and_pods_request():
    pod = Pod(
        namespace="x",
        name="x",
        uid=Uid("x"),
        node=NodeName("a"),
        phase=PodPhase.RUNNING,
        created=NOW,
        requests=Amounts(0, 8_000, 32 * 2**30, 1),
    )
    found = devices.fleet(snapshot([node("a"), node("b")], pods=(pod,)), "p").cpu
    assert found == replace(
        found, nodes=2, milli=64_000, requested_milli=8_000, memory=256 * 2**30, requested_memory=32 * 2**30
    )


def test_a_pool_that_does_not_exist_has_nothing():
    found = devices.fleet(snapshot([node("a")]), "other")
    assert (found.exists, found.devices, found.cpu.nodes) == (False, (), 0)

"""What is gone is forgotten: the scheduler keeps as much as there is, however much there was."""

from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace
from unit.core.builders import CLASSES, DEFAULTS, T0, after, job, node, pool, quota, snapshot, whole
from unit.sizes import grown, sizes

from rfuav_operator.core import pool_status
from rfuav_operator.core.capacity import placement
from rfuav_operator.core.model import (
    CreatePod,
    Job,
    JobStatus,
    Kind,
    Node,
    NodeName,
    PatchStatus,
    Pod,
    PodPhase,
    Preemption,
    Quota,
    Report,
    Resources,
    ScaleUp,
    Snapshot,
    Uid,
)
from rfuav_operator.core.model import Progress as Told
from rfuav_operator.core.preemption.feasibility import Headroom
from rfuav_operator.core.quantity import Amounts
from rfuav_operator.core.scheduler import Changes, Scheduler, Turn

ROUNDS = 32
DAY = 86_400


class World:
    """Jobs, pods and nodes that come and go, and one scheduler over all of it.

    One job stays and runs: its times come before those of all others, so that theirs would pile up behind it.
    """

    def __init__(self, **spec: Any) -> None:
        self.scheduler = Scheduler()
        self.pool = pool(**spec)
        self.jobs: dict[Uid, Job] = {}
        self.pods: dict[Uid, dict[str, Pod]] = {}
        self.nodes: dict[NodeName, Node] = {}
        self.quotas: dict[str, Quota] = {"home": quota("home", 1, lend=0)}
        self.now = T0
        stays = job("stays", namespace="home", priority_class_name="high", active_deadline_seconds=20 * DAY)
        self.stays = stays.uid
        self.jobs[stays.uid] = stays
        self.nodes[NodeName("home")] = whole("home", gpus=1)
        self.turn(everything=True)
        self.turn(stays.uid)

    def turn(self, *uids: Uid, nodes: Any = (), reports: Any = (), everything: bool = False) -> Turn:
        self.now += timedelta(seconds=1)
        seen = Snapshot(
            jobs=self.jobs,
            pods_of=self.pods,
            foreign={},
            creating={},
            nodes=self.nodes,
            pools={"default": self.pool},
            quotas=self.quotas,
            priority_classes=CLASSES,
            defaults=DEFAULTS,
        )
        dirt = Changes(jobs=uids, nodes=nodes, plan=True, everything=everything)
        done = self.scheduler.turn(seen, dirt, reports=reports, now=self.now)
        for action in done.actions:
            if isinstance(action, PatchStatus):
                self.jobs[action.job.uid] = replace(self.jobs[action.job.uid], status=action.status)
            elif isinstance(action, CreatePod):
                self._create(action)
        return done

    def _create(self, action: CreatePod) -> None:
        owner = self.jobs[action.job_uid]
        held = next(a for a in owner.status.assignments if a.pod == action.name)
        bound = NodeName(held.node) if held.node else None
        self.pods.setdefault(owner.uid, {})[action.name] = Pod(
            namespace=owner.namespace,
            name=action.name,
            uid=Uid(f"pod-{action.name}"),
            kind=owner.kind,
            job_uid=owner.uid,
            attempt=owner.status.attempt,
            index=held.shard or held.rank or 0,
            node=bound,
            wanted_node=bound,
            landing=action.landing,
            phase=PodPhase.RUNNING if bound else PodPhase.PENDING,
            started_at=self.now if bound else None,
            created=self.now,
            requests=Amounts(slots=held.gpus, cpu_milli=1000, memory=2**30, pods=1),
        )

    def round(self, number: int) -> None:
        """Everything of one round comes, does something, and goes."""
        names = [NodeName(f"n{number}-{i}") for i in range(10)]
        self.nodes |= {name: node(name, labels={"round": str(number)}) for name in names}
        fresh = {one.uid: one for one in self._some(number)}
        self.jobs |= fresh
        self.turn(*fresh, nodes=names)
        self.turn(*fresh, reports=[self._report(pod) for held in self.pods.values() for pod in held.values()])
        for index, held in enumerate(self.pods[uid] for uid in fresh if uid in self.pods):
            for name, pod in held.items():
                if pod.phase is PodPhase.RUNNING and index % 3:
                    end = PodPhase.FAILED if index % 3 == 1 else PodPhase.SUCCEEDED
                    held[name] = replace(pod, phase=end, exit_code=int(index % 3 == 1), finished_at=self.now)
        self.turn(*fresh)
        self.turn(*fresh)
        if number % 2:  # pods outlive their job, or their node
            self._remove(jobs=fresh)
            self._remove(pods=fresh)
            self._remove(nodes=names)
        else:
            self._remove(nodes=names)
            self._remove(jobs=fresh, pods=fresh)

    def _remove(self, *, jobs: Any = (), pods: Any = (), nodes: Any = ()) -> None:
        for uid in jobs:
            del self.jobs[uid]
        for uid in pods:
            self.pods.pop(uid, None)
        for name in nodes:
            del self.nodes[name]
        self.turn(*jobs, *pods, nodes=nodes)

    def _report(self, pod: Pod) -> Report:
        assert pod.job_uid is not None
        told = Told(percent=1, remaining_seconds=5)
        return Report(
            job_uid=pod.job_uid,
            pod=pod.name,
            attempt=pod.attempt,
            index=pod.index,
            sequence=1,
            progress=told,
            gpu_uuid=f"GPU-{pod.node}",
            received_at=self.now,
        )

    def _some(self, number: int) -> list[Job]:
        """Jobs of all sorts, each of a shape, and many in a namespace, of its own."""
        numbers = count()

        def one(**spec: Any) -> Job:
            index = next(numbers)
            asked = Resources(gpus=spec.pop("gpus", 1), cpu="1", memory=f"{2**30 + number * 100 + index}")
            return job(
                f"j{number}-{index}",
                namespace=f"team-{number}-{index % 10}",
                resources=asked,
                created=self.now,
                active_deadline_seconds=30 * DAY,
                ttl_seconds_after_finished=30 * DAY,
                priority_class_name=spec.pop("priority", ("low", "mid", "high")[index % 3]),
                **spec,
            )

        return [
            *(one() for _ in range(12)),
            *(one(kind=Kind.INFERENCE, shards=4, parallelism=2) for _ in range(8)),
            *(one(nodes=2) for _ in range(4)),
            *(one(pool=f"missing-{number}-{i}") for i in range(5)),
            *(one(source="nowhere", kind=Kind.INFERENCE) for _ in range(2)),
            *(one(gpus=0) for _ in range(4)),
            *(one(gpus=4) for _ in range(4)),
            one(status=JobStatus(avoided_nodes={f"n{number}-0": self.now + timedelta(days=1)})),
        ]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"preemption": Preemption(within_pool="LowerPriority", reclaim_borrowed="Any", min_runtime_seconds=0)},
        {"preemption": Preemption(within_pool="LowerPriority", min_runtime_seconds=7 * DAY)},
        {"scale_up": ScaleUp(max_jobs=5, timeout_seconds=DAY), "queueing": "StrictFIFO"},
    ],
    ids=["plain", "preempting", "slowly", "growing"],
)
def test_nothing_is_kept_of_jobs_nodes_namespaces_and_shapes_that_are_gone(spec):
    world = World(**spec)
    rounds = []
    for number in range(ROUNDS):
        world.round(number)
        assert world.jobs.keys() == world.pods.keys() == {world.stays}
        rounds.append(sizes(world.scheduler))
    assert grown(rounds) == {}


@pytest.mark.parametrize("preempting", [False, True])
def test_answers_for_a_waiting_shape_are_not_computed_again(preempting, monkeypatch):
    """However many shapes there are: what an event costs has no cliff."""
    asked: list[object] = []
    policy = Preemption(within_pool="LowerPriority", min_runtime_seconds=0) if preempting else Preemption()
    world = World(preemption=policy)
    names = [NodeName(f"n{i}") for i in range(3)]
    world.nodes |= {name: node(name) for name in names}
    waiting = [
        job(
            f"j{i}",
            resources=Resources(gpus=1, cpu="1", memory=str(2**30 + i)),
            created=after(i),
            priority_class_name="mid",
        )
        for i in range(800)
    ]
    world.jobs |= {one.uid: one for one in waiting}
    world.turn(*world.jobs, nodes=names)
    world.turn(*world.pods)
    real_suits, real_fits = placement._suits, Headroom.fits
    monkeypatch.setattr(placement, "_suits", lambda room, shape: asked.append(shape) or real_suits(room, shape))
    monkeypatch.setattr(Headroom, "fits", lambda headroom, shape: asked.append(shape) or real_fits(headroom, shape))
    for name in names:
        uid = next(uid for uid, pods in world.pods.items() if any(p.node == name for p in pods.values()))
        del world.pods[uid], world.jobs[uid]
        world.turn(uid)
    assert len(asked) <= 3 * len(waiting) * preempting  # on the one node that changed, each time, nothing without it


def test_what_is_in_use_is_gone_through_once_for_all_pools():
    class Counted(dict[Any, Any]):
        times = 0

        def items(self) -> Any:
            self.times += 1
            return super().items()

    pools = [pool(f"p{number}") for number in range(20)]
    jobs = [job(f"j{number}", pool=f"p{number}") for number in range(20)]
    seen, told = snapshot(jobs, pools=pools), Scheduler()
    told.turn(seen, Changes(everything=True), reports=[], now=T0)
    admission = told._admission
    assert admission is not None
    admission.usage.shares = shares = Counted(admission.usage.shares)
    assert len(list(pool_status.statuses(seen, seen.jobs, admission, T0))) == 20
    assert shares.times == 1

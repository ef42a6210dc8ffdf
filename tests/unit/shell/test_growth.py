"""What is gone is forgotten, in what was read and in the loop: nodes, jobs, pods and namespaces come and go."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from unit.core.builders import DEFAULTS, T0, after, foreign_pod, job, node, pool, quota, resource_quota
from unit.sizes import grown, sizes

from rfuav_kube import clock
from rfuav_kube.cache import REMEMBERED
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    DeletePod,
    Job,
    Kind,
    NodeName,
    PatchLimitsStatus,
    PatchStatus,
    Pod,
    PodPhase,
    Pool,
    Uid,
)
from rfuav_operator.core.quantity import Amounts
from rfuav_operator.shell.loop import HANDOFF_LIMIT, Loop
from rfuav_operator.shell.reading.state import ClusterState

ROUNDS = 40


class Cluster:
    """A state and a loop whose writes succeed at once; it is the writer that the loop hands them to."""

    def __init__(self) -> None:
        self.state = ClusterState(DEFAULTS, on_pod=self.pod_changed)
        self.loop = Loop(self.state, self, lambda _: [])  # type: ignore[arg-type]
        self.version = 0
        self.turns = 0
        self.state.pools.put("default", self.next(), pool())
        self.state.touch_all()

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self.loop.pod_changed(old, new)

    def next(self) -> int:
        self.version += 1
        return self.version

    def submit(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case PatchStatus(job=read, status=status):
                    self.put(replace(read, status=status))
                    self.state.settle_status(read.uid, status)
                case PatchLimitsStatus(target=target, status=status):
                    if isinstance(target, Pool):
                        self.state.pools.put(target.name, self.next(), replace(target, status=status))
                    else:
                        self.state.quotas.put(target.namespace, self.next(), replace(target, status=status))
                    self.state.settle_limits(target, status)
                case CreatePod():
                    self.create(action)
                case DeletePod(namespace=namespace, name=name):
                    self.state.pods.remove((namespace, name))
                case _:
                    pass

    def put(self, one: Job) -> None:
        self.state.jobs.put((one.kind, one.namespace, one.name), self.next(), one)

    def create(self, action: CreatePod) -> None:
        owner = self.state.job(action.job_uid)
        assert owner is not None
        held = next(a for a in owner.status.assignments if a.pod == action.name)
        made = Pod(
            namespace=owner.namespace,
            name=action.name,
            uid=Uid(action.name),
            kind=owner.kind,
            job_uid=owner.uid,
            attempt=owner.status.attempt,
            node=NodeName(held.node),
            phase=PodPhase.RUNNING,
            created=T0,
            started_at=T0,
            requests=Amounts(slots=held.gpus, pods=1),
        )
        self.state.pods.put((owner.namespace, action.name), self.next(), made)
        self.state.end_create(owner.uid, action.name)

    def turn(self) -> None:
        self.turns += 1
        self.loop.turn(after(self.turns))

    def round(self, number: int) -> None:
        """Everything of one round comes, runs, and goes."""
        nodes = [f"n{number}-{i}" for i in range(8)]
        for name in nodes:
            self.state.nodes.put(name, self.next(), node(name))
        teams = [f"team-{number}-{i}" for i in range(8)]
        strangers = []
        jobs = []
        for team, name in zip(teams, nodes, strict=True):
            self.state.quotas.put(team, self.next(), quota(team, 1))
            self.state.resource_quotas.put((team, "rq"), self.next(), resource_quota(team, gpus=100))
            strangers.append(foreign_pod(f"{name}-x", name, cpu=1))
            self.state.pods.put(("other", f"{name}-x"), self.next(), strangers[-1])
            jobs += [
                job(f"{team}-t", namespace=team),
                job(f"{team}-i", namespace=team, kind=Kind.INFERENCE, source=f"{team}-none"),
                job(f"{team}-j", namespace=team, kind=Kind.INFERENCE, shards=3, parallelism=3),
            ]
        for one in jobs:
            self.put(one)
        self.turn()
        self.turn()
        for pods in list(self.state.snapshot().pods_of.values()):
            for pod in list(pods.values()):
                ended = replace(pod, phase=PodPhase.SUCCEEDED, exit_code=0, finished_at=after(self.turns))
                self.state.pods.put((pod.namespace, pod.name), self.next(), ended)
        self.turn()
        for one in jobs:
            self.state.reject(one.uid, "refused")
            self.state.jobs.remove((one.kind, one.namespace, one.name), self.next())
        for uid in list(self.state.snapshot().pods_of):
            for pod in list(self.state.snapshot().pods_of.get(uid, {}).values()):
                self.state.pods.remove((pod.namespace, pod.name), self.next())
        for stranger in strangers:
            self.state.pods.remove((stranger.namespace, stranger.name), self.next())
        for team in teams:
            self.state.quotas.remove(team, self.next())
            self.state.resource_quotas.remove((team, "rq"), self.next())
        for name in nodes:
            self.state.nodes.remove(name, self.next())
        self.turn()


def test_nothing_is_kept_of_what_was_deleted(monkeypatch: Any) -> None:
    cluster, rounds, now = Cluster(), [], 0.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    for number in range(ROUNDS):
        cluster.round(number)
        now += HANDOFF_LIMIT / 2
        found = sizes(cluster.loop) + sizes(cluster.state)
        for path in [path for path in found if path.endswith("._removed")]:  # late echoes: bounded by itself
            assert found.pop(path) <= REMEMBERED
        rounds.append(found)
    assert grown(rounds) == {}

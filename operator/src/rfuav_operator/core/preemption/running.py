"""The running pods of a pool, and which of them are stopping: an index kept between plans for preemption.

In: the jobs that changed (`put`), and the time (`grow`). Out: runners by class (`RunnerClass`, which decides whether
they may be stopped), in the order of lost work, or by node.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from rfuav_operator.core.alarms import Alarms
from rfuav_operator.core.capacity.room import Allocation, Holder
from rfuav_operator.core.job.priority import priority
from rfuav_operator.core.model import Assignment, Job, Kind, NodeName, Pool, Snapshot, Uid, is_active

Place = tuple[float, NodeName, str, Uid]


class RunnerClass(NamedTuple):
    """Runners that, once old enough, may all be stopped for a job, or none."""

    priority: int
    namespace: str
    kind: Kind
    gpu: bool
    repeats: int  # pods that do lost work again: all of a job of several nodes; none of an inference, which keeps it


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """One admitted pod."""

    holder: Holder
    node: NodeName
    runner_class: RunnerClass
    job: Job
    assignment: Assignment
    old_at: datetime | None  # from when it may be stopped; None: it has just been admitted, or is about to end
    since: datetime | None  # of the work that is lost with it

    @property
    def place(self) -> Place:
        """Among its sort: least work lost first, then by name.

        A checkpoint of a clock ahead of ours is out of the order by name alone.
        """
        uid, pod = self.holder
        return -self.since.timestamp() if self.since and self.runner_class.repeats else 0.0, self.node, pod, uid


class Runners:
    """The pods of one pool that run, and those that go."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool.name
        self._min_runtime = timedelta(seconds=pool.spec.preemption.min_runtime_seconds)
        self.old: dict[RunnerClass, list[Place]] = {}  # old enough to be stopped, in order
        self.young: Counter[RunnerClass] = Counter()
        self.going: dict[
            Holder, Allocation
        ] = {}  # stopped, suspended, drained, ended: their room is about to come back
        self.going_gpus: Counter[str] = Counter()  # by namespace
        self.clearing: Counter[NodeName] = Counter()  # nodes that they leave
        self._runners: dict[Holder, Runner] = {}
        self._of: dict[Uid, list[Holder]] = {}
        self._on_node: dict[NodeName, dict[Holder, Runner]] = {}
        self._birthdays: Alarms[Holder] = Alarms()  # of the young: when they are old enough
        self._grown: set[Holder] = set()

    # --- changes

    def put(self, uid: Uid, job: Job | None, held: Mapping[str, Allocation], snapshot: Snapshot) -> list[NodeName]:
        """Update one job: what it holds, and its pods. Returns the nodes that are affected."""
        nodes = self._drop(uid)
        mine = {name: one for name, one in held.items() if one.pool == self._pool}
        if not mine:
            return nodes
        active = job is not None and is_active(job) and not job.deleting
        assigned = {a.pod: a for a in job.status.assignments} if job is not None and active else {}
        self._of[uid] = []
        for name, one in mine.items():
            holder = uid, name
            self._of[uid].append(holder)
            nodes.append(NodeName(one.node))
            pod, a = snapshot.pods_of.get(uid, {}).get(name), assigned.get(name)
            if job is None or a is None or a.stopping or (pod is not None and pod.ended):
                self.going[holder] = one
                self.going_gpus[one.namespace] += one.gpus
                self.clearing[NodeName(one.node)] += 1
            else:
                self._add(self._runner(holder, one, job, a, snapshot))
        return nodes

    def _add(self, runner: Runner) -> None:
        self._runners[runner.holder] = runner
        self._on_node.setdefault(runner.node, {})[runner.holder] = runner
        if runner.old_at is not None:
            self.young[runner.runner_class] += 1
            self._birthdays.set(runner.holder, runner.old_at)

    def _drop(self, uid: Uid) -> list[NodeName]:
        nodes = []
        for holder in self._of.pop(uid, ()):
            gone = self.going.pop(holder, None)
            if gone is not None:
                nodes.append(NodeName(gone.node))
                self.going_gpus[gone.namespace] -= gone.gpus
                if not self.going_gpus[gone.namespace]:
                    del self.going_gpus[gone.namespace]
                self.clearing[nodes[-1]] -= 1
                if not self.clearing[nodes[-1]]:
                    del self.clearing[nodes[-1]]
                continue
            runner = self._runners.pop(holder)
            nodes.append(runner.node)
            del self._on_node[runner.node][holder]
            if not self._on_node[runner.node]:
                del self._on_node[runner.node]
            if holder in self._grown:
                self._grown.discard(holder)
                places = self.old[runner.runner_class]
                del places[bisect_left(places, runner.place)]
                if not places:
                    del self.old[runner.runner_class]
            elif runner.old_at is not None:
                self._birthdays.set(holder, None)
                self._no_longer_young(runner)
        return nodes

    def _no_longer_young(self, runner: Runner) -> None:
        self.young[runner.runner_class] -= 1
        if not self.young[runner.runner_class]:
            del self.young[runner.runner_class]

    def grow(self, now: datetime) -> None:
        """Mark the runners that are old enough by now."""
        for holder in self._birthdays.due(now):
            runner = self._runners[holder]
            self._no_longer_young(runner)
            self._grown.add(holder)
            insort(self.old.setdefault(runner.runner_class, []), runner.place)

    # --- questions

    def next_birthday(self) -> datetime | None:
        """When the next one will be old enough."""
        return self._birthdays.next()

    def least_lost(self, runner_class: RunnerClass) -> Iterator[Runner]:
        """Those of one sort that are old enough, least work lost first."""
        return (self._runners[uid, pod] for _, _, pod, uid in self.old.get(runner_class, ()))

    def named(self, uid: Uid, pod: str) -> Runner:
        """One that runs."""
        return self._runners[uid, pod]

    def on_node(self, name: NodeName) -> Collection[Runner]:
        """All that run on one node."""
        return self._on_node[name].values() if name in self._on_node else ()

    def may_go(self, holder: Holder, below: int) -> bool:
        """Whether it goes, or is of lower priority than this."""
        runner = self._runners.get(holder)
        return runner is None or runner.runner_class.priority < below

    # --- one of them

    def _runner(self, holder: Holder, held: Allocation, job: Job, a: Assignment, snapshot: Snapshot) -> Runner:
        training = job.kind is Kind.TRAINING
        saved = job.status.checkpoint.saved_at if job.status.checkpoint else None
        since = max(a.started_at, saved) if a.started_at is not None and saved is not None else a.started_at
        return Runner(
            holder=holder,
            node=NodeName(held.node),
            runner_class=RunnerClass(
                priority(job, snapshot) or 0,
                held.namespace,
                job.kind,
                held.gpus > 0,
                job.spec.nodes if training else 0,
            ),
            job=job,
            assignment=a,
            old_at=self._old_enough_at(job, a, snapshot),
            since=since,
        )

    def _old_enough_at(self, job: Job, a: Assignment, snapshot: Snapshot) -> datetime | None:
        if job.set_aside:
            return None
        since = []
        for each in stops_of(job, a):
            pod = snapshot.pods_of.get(job.uid, {}).get(each.pod)
            if pod is None or pod.deleting or not pod.started or each.started_at is None:
                return None
            since.append(each.started_at)
        return max(since) + self._min_runtime


def stops_of(job: Job, a: Assignment) -> list[Assignment]:
    """What stops with one pod: a job of several nodes runs whole or not at all."""
    return list(job.status.assignments) if job.kind is Kind.TRAINING else [a]

"""The queue of each pool, in order, kept between turns.

Jobs that could run with room are in groups of one shape, namespace and priority, each by age; an answer for the first
job of a group holds for all. Jobs that may not run even with room are kept separately, with the reason.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.room import Shape
from rfuav_operator.core.job.priority import Age, age_of
from rfuav_operator.core.model import Job, Uid


class Key(NamedTuple):
    """What the jobs of a group have in common."""

    priority: int
    namespace: str
    shape: Shape
    started: bool  # has an admitted pod already: shards
    claims: bool = False  # others were stopped for it: what they leave is its own, whoever else waits


@dataclass(slots=True)
class Group:
    """Jobs alike, the oldest first."""

    key: Key
    ages: list[Age] = field(default_factory=list)


class BucketKey(NamedTuple):
    """What groups have in common between which nothing but age decides."""

    claims: bool
    priority: int
    namespace: str
    gpu: bool  # a namespace has two shares: of GPUs, and of jobs without GPU
    started: bool


@dataclass(slots=True)
class Bucket:
    """The groups that age alone orders, by their oldest job."""

    key: BucketKey
    oldest: list[tuple[Age, Group]] = field(default_factory=list)


@dataclass(slots=True)
class PoolQueue:
    """The queue of one pool."""

    groups: dict[Key, Group] = field(default_factory=dict)
    buckets: dict[BucketKey, Bucket] = field(default_factory=dict)
    shapes: Counter[Shape] = field(default_factory=Counter)  # the shapes that wait: in how many groups each
    length: int = 0  # jobs that wait whole: further shards of those that run have no place in the line
    gated: dict[Uid, Reason] = field(default_factory=dict)  # may not run whatever the room

    def put(self, key: Key, age: Age) -> None:
        """Put a job into its group."""
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(key)
            self.shapes[key.shape] += 1
        was = group.ages[0] if group.ages else None
        insort(group.ages, age)
        self.length += not key.started
        self._oldest_moved(group, was)

    def take(self, key: Key, age: Age) -> None:
        """Take a job out of its group."""
        group = self.groups[key]
        was = group.ages[0]
        del group.ages[bisect_left(group.ages, age)]
        self.length -= not key.started
        self._oldest_moved(group, was)
        if not group.ages:
            del self.groups[key]
            self.shapes[key.shape] -= 1
            if not self.shapes[key.shape]:
                del self.shapes[key.shape]

    def _oldest_moved(self, group: Group, was: Age | None) -> None:
        first = group.ages[0] if group.ages else None
        if first == was:
            return
        key = bucket_of(group.key)
        bucket = self.buckets.setdefault(key, Bucket(key))
        if was is not None:
            del bucket.oldest[bisect_left(bucket.oldest, (was,))]
        if first is not None:
            insort(bucket.oldest, (first, group))
        if not bucket.oldest:
            del self.buckets[key]


def bucket_of(key: Key) -> BucketKey:
    """The place of a group among those of its pool."""
    return BucketKey(key.claims, key.priority, key.namespace, key.shape.gpus > 0, key.started)


class Queues:
    """The queues of all pools."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolQueue] = {}
        self._places: dict[Uid, tuple[str, Key | None, Age]] = {}

    def put(self, job: Job, where: Key | Reason) -> None:
        """Put a job into its group, or beside the queue with the reason."""
        age = age_of(job)
        key = where if isinstance(where, Key) else None
        if self._places.get(job.uid) != (job.spec.pool, key, age):
            self.remove(job.uid)
            self._places[job.uid] = job.spec.pool, key, age
            queue = self.pools.setdefault(job.spec.pool, PoolQueue())
            if key is not None:
                queue.put(key, age)
        if isinstance(where, Reason):
            self.pools[job.spec.pool].gated[job.uid] = where

    def pool_of(self, uid: Uid) -> str:
        """The pool in whose queue a job is; empty: in none."""
        return self._places[uid][0] if uid in self._places else ""

    def waiting(self, namespaces: Collection[str]) -> set[str]:
        """The pools for which jobs of these namespaces wait."""
        return {name for name, queue in self.pools.items() if any(key.namespace in namespaces for key in queue.buckets)}

    def group_of(self, uid: Uid) -> Group | None:
        """The group of a job."""
        pool, key, _ = self._places.get(uid, ("", None, None))
        return None if key is None else self.pools[pool].groups.get(key)

    def namespaces(self, pool: str) -> set[str]:
        """Those with jobs that wait for GPUs of a pool."""
        queue = self.pools.get(pool)
        return set() if queue is None else {key.namespace for key in queue.buckets if key.gpu}

    def remove(self, uid: Uid) -> None:
        """Take a job out of its queue."""
        place = self._places.pop(uid, None)
        if place is None:
            return
        pool, key, age = place
        queue = self.pools[pool]
        if key is None:
            queue.gated.pop(uid, None)
        else:
            queue.take(key, age)
        if not queue.groups and not queue.gated:
            del self.pools[pool]

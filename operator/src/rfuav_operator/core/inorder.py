"""The order of a queue: claims, then priority, then the namespace's share, then age; and nothing else decides it.

Groups of jobs alike come in; their jobs go out one by one, each when it is its turn. Shares may grow meanwhile: what
was admitted counts for the next choice. Groups of one namespace share one place in the outer order, so that a share
that grows moves one entry and not all of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from rfuav_operator.core.placement import Need
from rfuav_operator.core.queues import Age, Group

Share = Callable[[str, Need], float]
Rank = tuple[bool, int, float, Age]


@dataclass(slots=True)
class _Bucket:
    """The groups of one priority and namespace, with GPU or without: all of one share."""

    claims: bool
    priority: int
    namespace: str
    need: Need  # of any of them: the share asks no more than whether it has GPUs
    heap: list[tuple[Age, int, int]] = field(default_factory=list)  # age of the first left, group, index in it
    rank: Rank | None = None  # where it stands in the outer order


class InOrder:
    """Jobs in the order in which they are to be admitted.

    Args:
        groups: who waits.
        share: a namespace's share at this moment; it may grow, never shrink.
    """

    def __init__(self, groups: Iterable[Group], share: Share) -> None:
        self._groups = list(groups)
        self._share = share
        self._buckets: list[_Bucket] = []
        self._bucket_of: list[int] = []
        self._outer: list[tuple[Rank, int]] = []
        known: dict[tuple[bool, int, str, bool], int] = {}
        for index, group in enumerate(self._groups):
            key = group.key.claims, group.key.priority, group.key.namespace, group.key.need.gpus > 0
            at = known.setdefault(key, len(self._buckets))
            if at == len(self._buckets):
                self._buckets.append(_Bucket(key[0], key[1], key[2], group.key.need))
            self._bucket_of.append(at)
            heappush(self._buckets[at].heap, (group.ages[0], index, 0))
        for at in range(len(self._buckets)):
            self._place(at)

    def _rank(self, bucket: _Bucket) -> Rank:
        return (
            not bucket.claims,
            -bucket.priority,
            self._share(bucket.namespace, bucket.need),
            bucket.heap[0][0],
        )

    def _place(self, at: int) -> None:
        bucket = self._buckets[at]
        if not bucket.heap:
            bucket.rank = None
            return
        rank = self._rank(bucket)
        if rank != bucket.rank:
            bucket.rank = rank
            heappush(self._outer, (rank, at))

    def pop(self) -> tuple[int, Group, int] | None:
        """The next job: its group's number, the group, and its index in it; None: there is none."""
        while self._outer:
            rank, at = heappop(self._outer)
            bucket = self._buckets[at]
            if rank != bucket.rank:  # it stands elsewhere by now
                continue
            bucket.rank = None
            if self._rank(bucket) != rank:
                self._place(at)
                continue
            _, number, index = heappop(bucket.heap)
            self._place(at)
            return number, self._groups[number], index
        return None

    def go_on(self, number: int, index: int, *, same: bool = False) -> None:
        """Let the group's job after `index` wait for its turn; `same`: the job itself, for its next shard."""
        group, following = self._groups[number], index if same else index + 1
        if following < len(group.ages):
            at = self._bucket_of[number]
            heappush(self._buckets[at].heap, (group.ages[following], number, following))
            self._place(at)

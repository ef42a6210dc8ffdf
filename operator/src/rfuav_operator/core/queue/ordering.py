"""The order of a queue: claims, then priority, then the namespace's share, then age; and nothing else decides it.

Buckets of groups of jobs alike come in; their jobs go out one by one, each when it is its turn. Shares may grow
meanwhile: what was admitted counts for the next choice. The cost depends on the number of buckets and on the jobs that
are taken, not on how many wait.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from rfuav_operator.core.job.priority import Age
from rfuav_operator.core.queue.queues import Bucket, BucketKey, Group, bucket_of

Share = Callable[[str, bool], float]
"""A namespace's share, of GPUs or of what runs without."""
Rank = tuple[bool, int, float, Age]


@dataclass(slots=True)
class _Walk:
    """How far the jobs of one bucket have had their turn."""

    bucket: Bucket
    next_group: int = 0  # the next group whose first job was not returned yet
    later: list[tuple[Age, int, Group]] = field(default_factory=list)  # a heap: the next jobs of groups that have begun
    rank: Rank | None = None  # its place in the outer order

    @property
    def _is_later(self) -> bool:
        """Whether the oldest remaining job continues a group that has begun."""
        oldest = self.bucket.oldest
        return bool(self.later) and (self.next_group == len(oldest) or self.later[0][0] < oldest[self.next_group][0])

    def first(self) -> tuple[Age, Group] | None:
        """The oldest job left, and its group."""
        if self._is_later:
            age, _, group = self.later[0]
            return age, group
        oldest = self.bucket.oldest
        return oldest[self.next_group] if self.next_group < len(oldest) else None

    def take(self) -> tuple[Group, int]:
        """The group of the oldest job left and the job's index in it; the next is the first."""
        if self._is_later:
            _, index, group = heappop(self.later)
            return group, index
        self.next_group += 1
        return self.bucket.oldest[self.next_group - 1][1], 0


class InOrder:
    """Jobs in the order in which they are to be admitted.

    Args:
        buckets: the waiting jobs; they must not change meanwhile.
        share: a namespace's share at this moment; it may grow, never shrink.
        is_closed: whether a group may be skipped; once closed, it stays closed.
    """

    def __init__(
        self, buckets: Iterable[Bucket], share: Share, is_closed: Callable[[Group], bool] | None = None
    ) -> None:
        self._share = share
        self._is_closed = is_closed
        self._walks: list[_Walk] = []
        self._number: dict[BucketKey, int] = {}
        self._outer: list[tuple[Rank, int]] = []
        for bucket in buckets:
            self._number[bucket.key] = len(self._walks)
            self._walks.append(_Walk(bucket))
            self._place(self._number[bucket.key])

    def _place(self, number: int) -> None:
        walk = self._walks[number]
        rank = self._rank(walk)
        if rank is None:
            walk.rank = None
        elif rank != walk.rank:
            walk.rank = rank
            heappush(self._outer, (rank, number))

    def _rank(self, walk: _Walk) -> Rank | None:
        """The place of the oldest job that is still to be asked; None: none is left."""
        while (first := walk.first()) is not None and self._is_closed is not None and self._is_closed(first[1]):
            walk.take()
        key = walk.bucket.key
        return first and (not key.claims, -key.priority, self._share(key.namespace, key.gpu), first[0])

    def pop(self) -> tuple[Group, int] | None:
        """The next job: its group, and its index in it; None: there is none."""
        while self._outer:
            rank, number = heappop(self._outer)
            walk = self._walks[number]
            if rank != walk.rank:  # its place has changed
                continue
            walk.rank = None
            if self._rank(walk) != rank:
                self._place(number)
                continue
            turn = walk.take()
            self._place(number)
            return turn
        return None

    def go_on(self, group: Group, index: int, *, same: bool = False) -> None:
        """Let the group's job after `index` wait for its turn; `same`: the job itself, for its next shard."""
        following = index if same else index + 1
        if following < len(group.ages):
            number = self._number[bucket_of(group.key)]
            heappush(self._walks[number].later, (group.ages[following], following, group))
            self._place(number)

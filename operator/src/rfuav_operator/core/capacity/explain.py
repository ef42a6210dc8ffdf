"""Why a job waits, in words and numbers that a person can act on. Computed once per shape of job and pool."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from rfuav_crds import reasons
from rfuav_operator.core import quantity
from rfuav_operator.core.capacity import gpus
from rfuav_operator.core.capacity.room import Room, Shape, Slots
from rfuav_operator.core.model import Job, Kind, Pool

_SHOWN = 4
_OTHERWISE = {  # what a node with free slots may lack, and whose amount helps nobody
    "pods": "with a free slot: at its limit of pods",
    "alone": "with room: reserved by a pod of scaleUp that runs there",
    "avoided": "with room: avoided for a while after a failure there",
}
_NO_SLOTS = Slots(0, 0, 0, 0)


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A reason of `Admitted=False` and its message."""

    reason: str
    message: str


def never_fits(shape: Shape, pool: Pool, rooms: Sequence[Room]) -> Reason | None:
    """Why no node of the pool takes this shape, however empty; None: some node does."""
    if not rooms:
        terms = ",".join(f"{k}={v}" for k, v in sorted(pool.spec.node_selector.items()))
        why = f"; no node outside other pools matches its nodeSelector {terms}" if terms else ""
        return Reason(reason=reasons.NO_MATCHING_NODE, message=f"{needs(shape)}; pool {pool.name} has no nodes{why}")
    matching = [room for room in rooms if not room.mismatch(shape)]
    if not matching:
        why = _count(room.mismatch(shape) for room in rooms)
        text = f"{needs(shape)}; pool {pool.name} has {_nodes(len(rooms))}, none suitable: {why}"
        text += _unknown_gpus(shape, pool, rooms)
        return Reason(reason=reasons.NO_MATCHING_NODE, message=text)
    small = [room.too_small(shape) for room in matching]
    if all(small):
        text = f"{needs(shape)}; larger than any empty node of pool {pool.name}: {_count(small)}"
        text += _unknown_gpus(shape, pool, rooms)
        return Reason(reason=reasons.EXCEEDS_MAX_QUOTA, message=text)
    able = small.count("")
    if able < shape.nodes:
        text = f"{needs(shape)}; pool {pool.name} has {_nodes(able)} that could run one of its pods when empty"
        text += _unknown_gpus(shape, pool, rooms)
        return Reason(reason=reasons.EXCEEDS_MAX_QUOTA, message=text)
    return None


def no_room(shape: Shape, pool: Pool, matching: Sequence[Room], unknown: Iterable[Room]) -> Reason:
    """What the pool lacks now for a shape that it could take.

    Args:
        shape: the shape.
        pool: the pool.
        matching: rooms of the nodes that suit the shape.
        unknown: rooms of the pool whose GPUs are not used because too little is known of them.
    """
    nodes, kind = _nodes(len(matching)), shape.kind
    closed = [room for room in matching if room.unread]  # by a pod that cannot be read
    if shape.gpus > 0:
        other = Kind.INFERENCE if kind is Kind.TRAINING else Kind.TRAINING
        slots = [room.slots[kind] for room in matching]
        limit, used, _, free = _sums(slots)
        other_limit, other_used, *_ = _sums([room.slots[other] for room in matching])
        foreign = sum([room.of_others.slots for room in matching])
        asked = shape.gpus
        roomy = [room for room, seen in zip(matching, slots, strict=True) if seen.free >= asked]
        text = f"pool {pool.name} has {free} of {limit} {_kind(kind)} slots free on {nodes} ({used} {_kind(kind)} slots"
        text += f" used; {other_used} of {other_limit} {_kind(other)} slots used"
        text += (f"; other pods use {foreign}" if foreign else "") + ")"
        if claimed := [room for room in matching if room.claimed]:
            first = f"pod {claimed[0].claimed_by} on {claimed[0].node.name}"
            text += f"; {_nodes(len(claimed))} closed to new GPU jobs by a pod with resource claims (DRA): {first}"
        if free >= shape.gpus > 1:
            text += f" (largest free block {max(seen.free for seen in slots)})"
    else:
        limit = sum(room.cpu_jobs[kind] for room in matching)
        roomy = [room for room in matching if room.jobs_used[kind] < room.cpu_jobs[kind]]
        free = sum(room.cpu_jobs[kind] - room.jobs_used[kind] for room in roomy)
        text = f"pool {pool.name} has room for {free} of {limit} {_kind(kind)} jobs without GPU on {nodes}"
    roomy = [room for room in roomy if not room.unread]
    if shape.nodes > 1:
        fitting = sum(not room.lacks(shape) for room in roomy)
        text += f"; {_nodes(fitting)} of the {shape.nodes} needed {'has' if fitting == 1 else 'have'} room now"
    text += _short_of(shape, roomy) + _unknown_gpus(shape, pool, unknown)
    if closed:
        where = f"{closed[0].unread_by} on {closed[0].node.name}"
        text += f"; {_nodes(len(closed))} closed by a pod that cannot be read: {where}"
    return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=f"{needs(shape)}; {text}")


def _sums(slots: Iterable[Slots]) -> Slots:
    """Those of all rooms together: a pool has a thousand of them."""
    return Slots(*map(sum, zip(_NO_SLOTS, *slots, strict=True)))


def all_refused(shape: Shape, job: Job) -> Reason:
    """The scheduler refused every suitable node: its last message, and the time of the next try."""
    status = job.status
    nodes = sorted(shape.avoided & shape.vetoed)
    shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
    words = next(
        (f.message for f in reversed(status.failures) if f.reason == reasons.UNSCHEDULABLE), "it gave no reason"
    )
    again = min(status.avoided_nodes[node] for node in nodes)
    text = f"{needs(shape)}; the scheduler refused every suitable node ({shown}): {words}"
    return Reason(reason=reasons.UNSCHEDULABLE, message=f"{text}; next try at {again:%Y-%m-%dT%H:%M:%SZ}")


def unknown_gpus(pool: Pool, rooms: Iterable[Room]) -> str:
    """The first node whose GPUs are not used because too little is known of them, and the remedy; empty: none."""
    found = sorted((room.node for room in rooms if room.node.gpu_unknown), key=lambda node: node.name)
    if not found:
        return ""
    others = f" (and {_nodes(len(found) - 1)} more)" if len(found) > 1 else ""
    if not gpus.missing(found[0].labels):
        advice = "give GPU feature discovery and the device plugin the same configuration"
    elif pool.spec.gpu_sharing is None:
        advice = f"check that GPU feature discovery runs, or set spec.gpuSharing in GPUPool {pool.name}"
    else:
        advice = f"check that GPU feature discovery runs, or correct spec.gpuSharing in GPUPool {pool.name}"
    return f"node {found[0].name}{others} has GPUs, but {found[0].gpu_unknown}: {advice}"


def _unknown_gpus(shape: Shape, pool: Pool, rooms: Iterable[Room]) -> str:
    text = unknown_gpus(pool, rooms) if shape.gpus > 0 else ""
    return text and f"; {text}"


def _short_of(shape: Shape, rooms: Sequence[Room]) -> str:
    """What the nodes with enough free slots lack."""
    lacking: dict[str, list[Room]] = defaultdict(list)
    for room in rooms:
        lacking[room.lacks(shape)].append(room)
    texts = []
    for what, resource in quantity.RESOURCES.items():
        short = lacking.get(what)
        if short and what not in _OTHERWISE:
            best = max(short, key=attrgetter(f"left.{what}"))
            needed, left = getattr(shape.requests, what), max(0, getattr(best.left, what))
            texts.append(
                f"{_nodes(len(short))} with a free slot: too little {resource.title} left "
                f"({resource.show(needed)} needed, at most {resource.show(left)} on {best.node.name})"
            )
    texts += [f"{_nodes(len(lacking[what]))} {words}" for what, words in _OTHERWISE.items() if what in lacking]
    return "".join(f"; {text}" for text in texts)


def needs(shape: Shape) -> str:
    """What the shape asks for, in words."""
    where = f" on each of {shape.nodes} nodes" if shape.nodes > 1 else ""
    if shape.only:
        where = f" on {' or '.join(sorted(shape.only))}, where {', '.join(shape.single)} is in use (ReadWriteOnce)"
    if shape.gpus == 0:
        return f"needs room for a {_kind(shape.kind)} job without GPU{where}"
    return f"needs {shape.gpus} GPU{'s' * (shape.gpus > 1)}{where}"


def _kind(kind: Kind) -> str:
    return "training" if kind is Kind.TRAINING else "inference"


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _count(words: Iterable[str]) -> str:
    """`2 cordoned, 1 without GPU`: each reason with the number of nodes it holds for, the most frequent first."""
    ranked = Counter(words).most_common()
    shown = [f"{n} {word}" for word, n in ranked[:_SHOWN]]
    if len(ranked) > _SHOWN:
        shown.append(f"{sum(n for _, n in ranked[_SHOWN:])} for other reasons")
    return ", ".join(shown)

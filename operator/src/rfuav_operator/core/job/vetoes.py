"""What it means when the kube-scheduler refuses a pod that is pinned to one node, and which nodes refused a job.

In: the message of `PodScheduled=False`, as the scheduler writes it: `0/3 nodes are available: 1 node(s) had volume
node affinity conflict, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: ...`. The pod wants one node, so
node affinity is the reason of all other nodes.
"""

import re
from datetime import datetime, timedelta
from enum import Enum

from msgspec.structs import replace

from rfuav_operator.core.model import Defaults, JobStatus

_FORM = re.compile(r"0/\d+ nodes are available: (?P<reasons>.*)", re.DOTALL)
_OTHERS = ("didn't satisfy plugin(s) [NodeAffinity]", "didn't match Pod's node affinity/selector")
_ROOM = ("Insufficient ", "Too many pods")  # may come back by itself
_VOLUME = re.compile(r"persistentvolumeclaim|\bpvc\b", re.IGNORECASE)
_MOST_DOUBLINGS = 5
_MOST_NODES = 256  # the CRD's bound


class Veto(Enum):
    """What the scheduler refuses."""

    NODE = "node"  # this node is not for the pod
    VOLUME = "volume"  # no node is, as long as its claim is as it is


def of(words: str) -> Veto | None:
    """What the scheduler refuses for longer than a moment; None: it is short of room, or says something else."""
    found = _FORM.match(words)
    if found is None:
        return None
    reasons = found["reasons"].partition(" preemption:")[0].split(", ")
    mine = [reason for reason in reasons if not any(words in reason for words in _OTHERS)]
    if any(_VOLUME.search(reason) for reason in mine):
        return Veto.VOLUME
    if any(words in reason for reason in mine for words in _ROOM):
        return None
    return Veto.NODE


def record(status: JobStatus, node: str, now: datetime, defaults: Defaults) -> JobStatus:
    """The status with one more refusal of the node: it is avoided for longer each time, until the job runs."""
    times = status.vetoes.get(node, 0) + 1
    seconds = defaults.node_avoid_seconds * 2 ** min(times - 1, _MOST_DOUBLINGS)
    avoided = {**status.avoided_nodes, node: now + timedelta(seconds=seconds)}
    longest = sorted(avoided, key=lambda name: avoided[name], reverse=True)[:_MOST_NODES]
    vetoes = {**status.vetoes, node: times}
    if len(vetoes) > _MOST_NODES:
        vetoes = {name: count for name, count in vetoes.items() if name in longest}
    return replace(status, avoided_nodes={name: avoided[name] for name in sorted(longest)}, vetoes=vetoes)

"""The owners of pods: each pod comes in as it was and as it is, and is found by its job, its job's name, or its node.

A pod names its job in its labels and owner, correctly or not. A pod that the job does not own takes room like a foreign
pod.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from rfuav_operator.core.model import Job, Kind, NodeName, Pod, Uid
from rfuav_operator.core.names import stem
from rfuav_operator.core.quantity import Amounts

J = TypeVar("J")
K = TypeVar("K")


class PodOwners:
    """The pods by owner.

    Args:
        job: the job of a UID; None if it is not known (any more).
    """

    def __init__(self, job: Callable[[Uid], Job | None]) -> None:
        self._job = job
        self.of: dict[Uid, dict[str, Pod]] = {}  # the pods of a job, by name
        self.made_for: dict[tuple[str, str], dict[str, Pod]] = {}  # live, by the job's namespace and name
        self.foreign: dict[NodeName, tuple[Pod, ...]] = {}
        self._naming: dict[Uid, dict[tuple[str, str], Pod]] = {}  # all that name a job as theirs, rightly or not

    def take_out(self, pod: Pod) -> bool:
        """Forget a pod as it was; whether it was none of a job's."""
        key, uid = (pod.namespace, pod.name), pod.job_uid
        _drop(self.made_for, (pod.namespace, pod.job_name), pod.name)
        if uid is not None:
            _drop(self._naming, uid, key)
            held = self.of.get(uid, {}).get(pod.name)
            if held is not None and held.namespace == pod.namespace:
                _drop(self.of, uid, pod.name)
                return False
        if (room := room_of(pod)) is not None:
            left = tuple(p for p in self.foreign.get(room[0], ()) if (p.namespace, p.name) != key)
            if left:
                self.foreign[room[0]] = left
            else:
                self.foreign.pop(room[0], None)
        return True

    def put_in(self, pod: Pod) -> bool:
        """Hold a pod; whether it is a job's."""
        if pod.job_name and pod.live:
            self.made_for.setdefault((pod.namespace, pod.job_name), {})[pod.name] = pod
        if pod.job_uid is not None:
            self._naming.setdefault(pod.job_uid, {})[pod.namespace, pod.name] = pod
            if self._is_own(pod.job_uid, pod):
                self.of.setdefault(pod.job_uid, {})[pod.name] = pod
                return True
        if (room := room_of(pod)) is not None:
            self.foreign[room[0]] = (*self.foreign.get(room[0], ()), pod)
        return False

    def sort(self, uid: Uid) -> list[Pod]:
        """Look again at pods that name this job, which is known now. Returns the pods whose owner changed."""
        wrong = [p for p in self._naming.get(uid, {}).values() if self._is_own(uid, p) != self._holds(uid, p)]
        for pod in wrong:
            self.take_out(pod)
        for pod in wrong:
            self.put_in(pod)
        return wrong

    def on_node(self, node: NodeName) -> tuple[set[Uid], Iterable[tuple[str, str]]]:
        """The jobs with pods on a node, and the namespaces and names for which pods there were made."""
        owners = {uid for uid, pods in self.of.items() if any(p.node == node for p in pods.values())}
        return owners, [key for key, pods in self.made_for.items() if any(p.node == node for p in pods.values())]

    def _is_own(self, uid: Uid, pod: Pod) -> bool:
        """Whether the pod belongs to this job: it has the job's namespace, and its name follows from the job's.

        For a job that is not known (any more), the pods that were seen first count as its own.
        """
        job = self._job(uid)
        if job is not None:
            made = pod.name.startswith(f"{stem(job.name, job.uid)}-")
            return made and pod.namespace == job.namespace and pod.kind is job.kind
        return all(held.namespace == pod.namespace for held in self.of.get(uid, {}).values())

    def _holds(self, uid: Uid, pod: Pod) -> bool:
        return self.of.get(uid, {}).get(pod.name) is pod


def room_of(pod: Pod) -> tuple[NodeName, Uid, bool, Kind | None, Amounts, tuple[str, ...], bool, str] | None:
    """The parts of a foreign pod that matter to admission: its node first, then pod, binding and amounts.

    An orphaned pod with our labels that is not bound yet may still be bound to the node that it was made for, until
    the scheduler says that it does not fit.
    """
    node = pod.node or (pod.wanted_node if pod.kind is not None and not pod.unschedulable else None)
    if node is None or not pod.live:
        return None
    held = node, pod.uid, pod.node is not None, pod.kind
    return *held, pod.requests, pod.claims, pod.claims_devices, pod.unreadable


def _drop(index: dict[J, dict[K, Pod]], job: J, key: K) -> None:
    """Take a pod out of an index by job."""
    held = index.get(job, {})
    held.pop(key, None)
    if not held:
        index.pop(job, None)

"""The promises of the operator, checked at every watch event; shares no code with the operator.

Events of pods, jobs, nodes and pools come in from `observer`; out come `violations()`, sentences, and counts of what was seen.
tests/unit/test_audit.py shows that each broken promise is found.
"""

import threading
from collections import Counter, defaultdict
from typing import Any

from rfuav_crds.contract import GPU, GROUP, LABEL_ATTEMPT, LABEL_KIND, LABEL_RANK, LABEL_SHARD

_PROGRESS = {"percent", "epoch", "processed"}  # steps start anew in every epoch
TERMINAL_JOB = {"Succeeded", "Failed", "Cancelled"}
TERMINAL_POD = {"Succeeded", "Failed"}
JOBS = ("TrainingJob", "InferenceJob")
_MI = 1024**2
_UNITS = {"Ki": 1024, "Mi": _MI, "Gi": 1024**3, "Ti": 1024**4, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
FOREIGN_PODS_ARE_KNOWN_AFTER = 5.0
"""Seconds: a pod of another workload may be bound in the very moment in which a job is admitted, and nobody can know; later, it must be counted."""

LISTED = "LISTED"
"""The change of an object that the first list brought; the others are those of a watch: ADDED, MODIFIED, DELETED."""

Object = dict[str, Any]


def to_bytes(quantity: object) -> int:
    """A Kubernetes quantity of memory in bytes."""
    text = str(quantity)
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * factor)
    return int(float(text))


def _gpus(pod: Object) -> int:
    containers = pod["spec"].get("containers") or ()
    return sum(int((c.get("resources") or {}).get("limits", {}).get(GPU, 0)) for c in containers)


def _live(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") not in TERMINAL_POD


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _job_uid(pod: Object) -> str | None:
    """The UID of the job that controls the pod: by ownerReference, which nobody else can set by accident."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["apiVersion"].startswith(f"{GROUP}/"):
            return str(owner["uid"])
    return None


def _pinned(pod: Object) -> str | None:
    """The node that a pod is bound to or, before that, the one its required affinity names."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and len(field["values"]) == 1:
                return str(field["values"][0])
    return None


def _index(pod: Object) -> str:
    labels = _labels(pod)
    return labels.get(LABEL_SHARD, labels.get(LABEL_RANK, "0"))


def _name(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


class Audit:
    """Holds what was last seen of every object, checks each event against the promises, remembers what was broken.

    Resource versions are revisions of one etcd, so they order events of different kinds: a pod that was created at revision r
    must have stood in its job's status at a revision below r.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        # job UID -> what it went through: (revision, phase, reason), one for every change of phase or reason
        self.history: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        self._pods: dict[str, Object] = {}
        self._foreign_since: dict[str, float] = {}
        self._nodes: dict[str, Object] = {}
        self._pools: dict[str, Object] = {}
        self._jobs: dict[str, Object] = {}
        self._recorded: dict[tuple[str, str], int] = {}  # (job UID, pod name) -> first revision that names it
        self._created: dict[str, tuple[str, str, int]] = {}  # pod UID -> (job UID, pod name, revision)
        self._listed: set[str] = set()  # pods that were there before the audit: nobody saw what came first
        self._made: dict[tuple[str, str, str], str] = {}  # (job UID, attempt, index) -> pod UID
        self._most: dict[tuple[str, Any, str], int] = {}  # (job UID, attempts, field) -> furthest progress
        self._broken: dict[str, None] = {}  # in order, each once
        self._lock = threading.Lock()

    def violations(self) -> list[str]:
        """All broken promises so far; call it at the end, when every watch has caught up."""
        with self._lock:
            late = [
                f"pod {name} was created at revision {revision}, its job recorded it "
                + ("never" if recorded is None else f"only at {recorded}")
                for job, name, revision in self._created.values()
                if (recorded := self._recorded.get((job, name))) is None or recorded >= revision
            ]
            return [*self._broken, *late]

    @property
    def jobs_seen(self) -> set[str]:
        """Names of all jobs that are known, deleted ones too."""
        return {job["metadata"]["name"] for job in self._jobs.values()}

    def first(self, uid: str, phase: str) -> int:
        """The revision at which a job first was in a phase."""
        return next(revision for revision, seen, _ in self.history[uid] if seen == phase)

    def event(self, kind: str, change: str, obj: Object, now: float) -> None:
        """One watch event: `kind` as in the manifest, `change` LISTED, ADDED, MODIFIED or DELETED, `now` in seconds."""
        with self._lock:
            self.seen[kind] += 1
            if kind == "Pod":
                self._pod(change, obj, now)
            elif kind in JOBS:
                self._job(kind, change, obj)
            else:
                store = {"Node": self._nodes, "GPUPool": self._pools}[kind]
                if change == "DELETED":
                    store.pop(obj["metadata"]["name"], None)
                else:
                    store[obj["metadata"]["name"]] = obj

    def break_(self, sentence: str) -> None:
        """Remember a violation."""
        self._broken.setdefault(sentence)

    # --- pods

    def _pod(self, change: str, pod: Object, now: float) -> None:
        uid, job = pod["metadata"]["uid"], _job_uid(pod)
        if change == "DELETED" or not _live(pod):
            self._pods.pop(uid, None)
            self._foreign_since.pop(uid, None)
            if change == "DELETED":
                return
        else:
            self._pods[uid] = pod
        if job is None:
            if pod["spec"].get("nodeName") and uid in self._pods:
                self._foreign_since.setdefault(uid, now)
            return
        self.seen["job pod"] += 1
        key = (job, _labels(pod).get(LABEL_ATTEMPT, "?"), _index(pod))
        if self._made.setdefault(key, uid) != uid:
            self.break_(f"pod {_name(pod)}: attempt {key[1]}, index {key[2]} of its job was made twice")
        if change != LISTED and uid not in self._listed:
            self._created.setdefault(uid, (job, pod["metadata"]["name"], _version(pod)))
        else:
            self._listed.add(uid)
        twins = [p for p in self._pods.values() if _job_uid(p) == job and _index(p) == key[2]]
        if len(twins) > 1:
            self.break_(f"two live pods of one job and index: {sorted(map(_name, twins))}")
        if uid in self._pods and (node := _pinned(pod)) is not None:
            self._check_node(node, pod, now, is_new=change == "ADDED")

    def _check_node(self, name: str, pod: Object, now: float, *, is_new: bool) -> None:
        node = self._nodes.get(name)
        if node is None:
            self.break_(f"pod {_name(pod)} is assigned to node {name}, which is not there")
            return
        slots = int((node["status"].get("allocatable") or {}).get(GPU, 0))
        here = [p for p in self._pods.values() if _pinned(p) == name]
        limits = self._limits(node, slots)
        for kind in JOBS:
            ours = [p for p in here if _job_uid(p) and _labels(p).get(LABEL_KIND) == kind]
            used = sum(map(_gpus, ours))
            if used > limits[kind]:
                self.break_(f"node {name}: {used} {kind} slots in use, at most {limits[kind]}: {_names(ours)}")
            on_cpu = [p for p in ours if _gpus(p) == 0]
            if len(on_cpu) > limits[f"{kind} on CPU"]:
                self.break_(
                    f"node {name}: {len(on_cpu)} {kind} on CPU, at most {limits[f'{kind} on CPU']}: {_names(on_cpu)}"
                )
        if is_new and slots and _gpus(pod):  # allocatable falls to 0 when a device plugin dies; running pods go on
            known = [p for p in here if _job_uid(p) or self._known(p, now)]
            if sum(map(_gpus, known)) > slots:
                self.break_(
                    f"node {name}: {sum(map(_gpus, known))} GPU slots asked for, it has {slots}: {_names(known)}"
                )

    def _known(self, foreign: Object, now: float) -> bool:
        since = self._foreign_since.get(foreign["metadata"]["uid"])
        return since is not None and now - since >= FOREIGN_PODS_ARE_KNOWN_AFTER

    def _limits(self, node: Object, slots: int) -> dict[str, int]:
        labels = _labels(node)
        physical = int(labels.get(f"{GPU}.count", slots))
        memory = int(labels[f"{GPU}.memory"]) * _MI if f"{GPU}.memory" in labels else 0
        spec = self._pool_of(labels).get("spec", {})
        tiers = sorted(spec.get("perGPU") or (), key=lambda t: to_bytes(t.get("minMemory", 0)))
        reached = [t for t in tiers if to_bytes(t.get("minMemory", 0)) <= memory] or tiers[:1]
        tier = {"training": 1, "inference": 1, **reached[-1]} if reached else {"training": 0, "inference": 0}
        cpu = spec.get("perNodeCPU") or {"training": 0, "inference": 0}
        return {
            "TrainingJob": physical * tier["training"],
            "InferenceJob": physical * tier["inference"],
            "TrainingJob on CPU": cpu["training"],
            "InferenceJob on CPU": cpu["inference"],
        }

    def _pool_of(self, labels: dict[str, str]) -> Object:
        def terms(pool: Object) -> dict[str, str]:
            return (pool.get("spec") or {}).get("nodeSelector") or {}

        fitting = [p for p in self._pools.values() if terms(p).items() <= labels.items()]
        return min(fitting, key=lambda p: (-len(terms(p)), p["metadata"]["name"]), default={})

    # --- jobs

    def _job(self, kind: str, change: str, job: Object) -> None:
        uid, status = job["metadata"]["uid"], job.get("status") or {}
        for assignment in status.get("assignments") or ():
            self._recorded.setdefault((uid, assignment["pod"]), _version(job))
        before = (self._jobs.get(uid) or {}).get("status") or {}
        self._jobs[uid] = job
        if change == "DELETED":
            return
        who, phase = f"{kind} {_name(job)}", status.get("phase")
        if phase and (phase, status.get("reason")) != (before.get("phase"), before.get("reason")):
            self.history[uid].append((_version(job), phase, status.get("reason", "")))
        if before.get("phase") in TERMINAL_JOB and phase != before["phase"]:
            self.break_(f"{who} moved from {before['phase']} to {phase}")
        if status.get("attempt", 0) < before.get("attempt", 0):
            self.break_(f"{who}: attempt went back from {before['attempt']} to {status.get('attempt', 0)}")
        attempts, progress = _attempts(status), status.get("progress") or {}
        for field in _PROGRESS & progress.keys():
            most = self._most.get((uid, attempts, field), 0)
            if progress[field] < most:
                self.break_(f"{who}: progress.{field} went back from {most} to {progress[field]}")
            self._most[uid, attempts, field] = max(most, progress[field])


def _attempts(status: Object) -> tuple[Any, ...]:
    return status.get("attempt"), tuple(sorted(((status.get("shards") or {}).get("attempts") or {}).items()))


def _names(pods: list[Object]) -> list[str]:
    return sorted(map(_name, pods))

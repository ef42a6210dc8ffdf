"""What is the case on the server, read from raw objects with no code of the operator: what the invariants judge by.

It also keeps what the present state cannot tell: which limits stood when, what a process knew when it decided, and the
last status of jobs that are gone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.deeds import space
from simulation.server import JOBS, Change, Key, Object

if TYPE_CHECKING:
    from simulation.api import Target
    from simulation.world import World

GPU = "nvidia.com/gpu"
GROUP = "rfuav.io"
TERMINAL = ("Succeeded", "Failed", "Cancelled")
_UNITS = {"Gi": 2**30, "Mi": 2**20, "Ki": 2**10}


# --- one object


class Asked(NamedTuple):
    """What a pod requests."""

    gpus: int
    cpu_milli: int
    memory: int


def number(quantity: Any) -> int:
    """A whole quantity, in bytes if it has a unit."""
    text = str(quantity)
    return int(text[:-2]) * _UNITS[text[-2:]] if text[-2:] in _UNITS else int(text)


def asked(pod: Object) -> Asked:
    """The requests of the last container: a sidecar, which a mesh puts before it, asks for nothing."""
    resources = pod["spec"]["containers"][-1].get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    cpu = str(requests.get("cpu", "0"))
    milli = int(cpu[:-1]) if cpu.endswith("m") else int(cpu) * 1000
    return Asked(int(requests.get(GPU, "0")), milli, number(requests.get("memory", "0")))


def claims_of(pod: Object) -> list[str]:
    """The claims that it mounts."""
    sources = (volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes") or ())
    return sorted({source["claimName"] for source in sources if source})


def claims_devices(pod: Object) -> bool:
    """Whether a pod of others has devices by resource claims: which, it does not say."""
    return bool(pod["spec"].get("resourceClaims")) and not owner_of(pod)


def wanted_node(pod: Object) -> str:
    """The node that the pod is bound to, or that its affinity names; empty: it waits for any that comes."""
    bound = pod["spec"].get("nodeName")
    if bound:
        return str(bound)
    affinity = pod["spec"].get("affinity") or {}
    required = affinity.get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["operator"] == "In":
                return str(field["values"][0])
    return ""


def is_live_phase(pod: Object) -> bool:
    """Whether the API server does not know of its end."""
    return pod["status"]["phase"] not in ("Succeeded", "Failed")


def exit_code(pod: Object) -> int | None:
    """With which code its trainer has ended, whatever runs beside; None: it has not."""
    for container in pod["status"].get("containerStatuses") or ():
        if container["name"] == "trainer" and (ended := container["state"].get("terminated")):
            return int(ended["exitCode"])
    return None


def owner_of(pod: Object) -> str:
    """UID of the job that controls it; empty: a pod of others.

    Also one that names a job of another namespace, and one whose labels do not say its kind and attempt.
    """
    owner = _controller(pod)
    if owner is None or pod["metadata"]["namespace"] != space(owner["name"]):
        return ""
    return str(owner["uid"]) if label(pod, "kind") == owner["kind"] and label(pod, "attempt") else ""


def _controller(pod: Object) -> Object | None:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller") and o["apiVersion"].startswith(GROUP)), None)


def made_for(pod: Object) -> str:
    """The name of the job that it was made for, by its owner or by its labels; empty: it never was a job's."""
    owner = _controller(pod)
    return str(owner["name"]) if owner is not None else label(pod, "job") * bool(label(pod, "kind"))


def label(pod: Object, name: str) -> str:
    """A label of our group."""
    return str((pod["metadata"].get("labels") or {}).get(f"{GROUP}/{name}", ""))


def unit_of(pod: Object) -> tuple[str, int]:
    """The unit it runs: job UID, and rank or shard."""
    return owner_of(pod), int(label(pod, "shard") or label(pod, "rank") or 0)


def phase_of(job: Object | None) -> str:
    """The phase in its status."""
    return str((job or {}).get("status", {}).get("phase") or "")


def attempt_of(job: Object, shard: str | None) -> int:
    """The recorded attempt of a job, or of its shard."""
    status = job.get("status") or {}
    if shard is None:
        return int(status.get("attempt") or 0)
    return int(((status.get("shards") or {}).get("attempts") or {}).get(shard, 0))


# --- limits


class Limits(NamedTuple):
    """What may be in use together on one node."""

    training: int = 0
    inference: int = 0
    slots: int = 0
    training_jobs: int = 0
    inference_jobs: int = 0
    cpu_milli: int = 0
    memory: int = 0


def limits_of(node: Object, pools: Iterable[Object]) -> Limits:
    """By the pool it belongs to: of those whose selector matches, most terms first, then by name."""
    labels = node["metadata"].get("labels") or {}
    mine = [
        pool for pool in pools if all(labels.get(k) == v for k, v in (pool["spec"].get("nodeSelector") or {}).items())
    ]
    if not mine:
        return Limits()
    pool = min(mine, key=lambda p: (-len(p["spec"].get("nodeSelector") or {}), p["metadata"]["name"]))
    room = node["status"]["allocatable"]
    slots = int(room.get(GPU, "0"))
    replicas = int(labels.get(f"{GPU}.replicas") or 0)
    gpus = min(int(labels.get(f"{GPU}.count") or 0), slots // replicas) if replicas else 0  # healthy ones
    memory = int(labels.get(f"{GPU}.memory") or 0) * 2**20
    tiers = sorted(pool["spec"]["perGPU"], key=lambda tier: number(tier["minMemory"]))
    tier = [tier for tier in tiers if number(tier["minMemory"]) <= memory][-1]
    cpu_jobs = pool["spec"]["perNodeCPU"]
    return Limits(
        training=gpus * tier["training"],
        inference=gpus * tier["inference"],
        slots=slots,
        training_jobs=cpu_jobs["training"],
        inference_jobs=cpu_jobs["inference"],
        cpu_milli=int(room["cpu"]) * 1000,
        memory=number(room["memory"]),
    )


def _says_how_it_shares(node: Object) -> bool:
    """Whether its labels are there, and do not contradict the slots that its device plugin offers."""
    labels, slots = node["metadata"]["labels"], int(node["status"]["capacity"].get(GPU, "0"))
    count, replicas = int(labels.get(f"{GPU}.count") or 0), int(labels.get(f"{GPU}.replicas") or 0)
    return bool(count and replicas) and slots % replicas == 0 and slots <= count * replicas


class Knowledge(NamedTuple):
    """Up to which version a process had been told of each resource when it decided."""

    pods: int
    nodes: int
    gpupools: int
    gpuquotas: int
    resourcequotas: int


NOW = Knowledge(*(10**9 for _ in Knowledge._fields))  # of somebody who knows everything


def knowledge(known: dict[str, int]) -> Knowledge:
    """Of the versions up to which everything is known."""
    return Knowledge(*(known[resource] for resource in Knowledge._fields))


class Share(NamedTuple):
    """What a namespace may use of a pool at most."""

    gpus: float = float("inf")
    training: float = float("inf")
    inference: float = float("inf")


def shares_of(quota: Object) -> dict[str, Share]:
    """By pool."""
    found = {}
    for entry in quota["spec"]["pools"]:
        gpus = entry["gpus"]
        most = gpus["nominal"] + gpus["borrowingLimit"] if "borrowingLimit" in gpus else float("inf")
        jobs = (entry.get(kind, float("inf")) for kind in ("maxTrainingJobs", "maxInferenceJobs"))
        found[entry["name"]] = Share(most, *jobs)
    return found


class Truth:
    """Everything the invariants ask for."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.server = world.server
        self.quotas: dict[str, list[tuple[int, dict[str, Share]]]] = defaultdict(list)  # by namespace: since when
        self.nodes: dict[str, list[tuple[int, Object | None]]] = defaultdict(list)  # by name: since when
        self.pools: list[tuple[int, list[Object]]] = [(0, [])]
        self.resource_quotas: dict[str, list[tuple[int, Object | None]]] = defaultdict(list)  # by namespace: since when
        self.decided: dict[str, Knowledge] = {}  # by pod name: what was known when its room was taken
        self.stopped: dict[str, Knowledge] = {}  # by pod name: what was known when it was told to stop
        self.deleted: dict[str, Knowledge] = {}  # by pod UID: what was known when its deletion was decided
        self.left_at: dict[str, int] = {}  # by pod UID: the version at which it stopped being a job's
        self.last: dict[str, Object] = {}  # by UID: jobs that are gone, as they were
        self.bound_at: dict[str, int] = {}  # by UID: the version at which a pod was bound
        self.misplaced: dict[Key, str] = {}  # pods that came where the limits had no room for them: UID
        self.succeeded: set[str] = set()  # names of pods whose trainer was seen to succeed
        self.ended_at: dict[str, float] = {}  # by pod name
        self.taken: dict[str, list[tuple[float, int, object]]] = defaultdict(
            list
        )  # by pod name: reports, who took them
        self.requests: list[Callable[[str, str, Target, Any], None]] = []

    def changed(self, change: Change) -> None:
        """Keep what later questions need; runs before the invariants."""
        if change.resource == "nodes":
            self.nodes[change.key[1]].append((change.version, None if change.type == "DELETED" else change.new))
        elif change.resource == "gpupools":
            self.pools.append((change.version, self.server.all("gpupools")))
        elif change.resource == "gpuquotas":
            shares = {} if change.type == "DELETED" else shares_of(change.new)
            self.quotas[change.key[0]].append((change.version, shares))
        elif change.resource == "resourcequotas":
            there = None if change.type == "DELETED" else change.new
            self.resource_quotas[change.key[0]].append((change.version, there))
        elif change.resource in JOBS and change.type == "DELETED":
            self.last[change.new["metadata"]["uid"]] = change.new
        elif change.resource == "pods":
            if change.old is not None and owner_of(change.old) and not owner_of(change.new):
                self.left_at[change.new["metadata"]["uid"]] = change.version
            if change.new["spec"].get("nodeName"):
                self.bound_at.setdefault(change.new["metadata"]["uid"], change.version)
            if exit_code(change.new) == 0 and owner_of(change.new):
                self.succeeded.add(change.key[1])
            if (not is_live_phase(change.new) or exit_code(change.new) is not None) and owner_of(change.new):
                self.ended_at.setdefault(change.key[1], change.at)

    def decides(self, known: dict[str, int], pod: str) -> None:
        """A process takes room for a pod, on what it knows now."""
        self.decided[pod] = knowledge(known)

    def stops(self, known: dict[str, int], pod: str) -> None:
        """A process tells a pod to stop, on what it knows now."""
        self.stopped[pod] = knowledge(known)

    def deletes(self, known: dict[str, int], uid: str) -> None:
        """A process decides to delete a pod, on what it knows now."""
        self.deleted[uid] = knowledge(known)

    def has_just_left(self, pod: Object) -> bool:
        """Whether a pod was still a job's, as far as the process knew that decided to delete it."""
        uid = pod["metadata"]["uid"]
        return uid in self.deleted and self.left_at.get(uid, 0) > self.deleted[uid].pods

    def request(self, process: str, method: str, target: "Target", body: Any) -> None:
        """A request arrives at the server."""
        for check in self.requests:
            check(process, method, target, body)

    # --- questions

    def live(self, pod: Object) -> bool:
        """Whether its containers run, or may still start."""
        if not is_live_phase(pod):
            return False
        return not pod["metadata"].get("deletionTimestamp") or self.world.kubelet.runs(pod["metadata"]["uid"])

    def job(self, uid: str) -> Object | None:
        """A job by UID, as it is or was."""
        for resource in JOBS:
            for job in self.server.all(resource):
                if job["metadata"]["uid"] == uid:
                    return job
        return self.last.get(uid)

    def assignment(self, uid: str, pod: str) -> Object | None:
        """The record of a pod in its job's status."""
        status = (self.job(uid) or {}).get("status") or {}
        return next((a for a in status.get("assignments") or () if a["pod"] == pod), None)

    def ours_on(self, node: str) -> list[Object]:
        """Live pods of ours that are or will be there."""
        return [p for p in self.server.all("pods") if owner_of(p) and wanted_node(p) == node and self.live(p)]

    def others_on(self, node: str, known: int) -> list[Object]:
        """Live pods of others, bound by the version `known`."""
        return [
            p
            for p in self.server.all("pods")
            if not owner_of(p)
            and p["spec"].get("nodeName") == node
            and self.live(p)
            and self.bound_at[p["metadata"]["uid"]] <= known
        ]

    def widest(self, node: str, knowledge: Knowledge) -> Limits:
        """The widest limits that stood on a node since somebody knew this much."""
        nodes = [held for held in _since(self.nodes[node], knowledge.nodes) if held is not None]
        pools = _since(self.pools, knowledge.gpupools)
        # What it knew of the one may be older than what it knew of the other.
        current = [limits_of(held, there) for held in nodes for there in pools]
        return Limits(*map(max, zip(*current, strict=True)))

    def may_judge(self, pod: Object, knowledge: Knowledge) -> bool:
        """Whether somebody who knew this much could tell if a pod's node is for it: its slots and labels, and the pool."""
        gpus, job = asked(pod).gpus, self.job(owner_of(pod))
        nodes, pools = _since(self.nodes[wanted_node(pod)], knowledge.nodes), _since(self.pools, knowledge.gpupools)
        return (
            job is not None
            and all(any(pool["metadata"]["name"] == job["spec"]["pool"] for pool in there) for there in pools)
            and all(held is not None and int(held["status"]["allocatable"].get(GPU, "0")) >= gpus for held in nodes)
            and all(held is not None and (not gpus or _says_how_it_shares(held)) for held in nodes)
        )

    def share(self, namespace: str, pool: str, knowledge: Knowledge) -> Share:
        """The widest share of a pool that a namespace had since somebody knew this much."""
        history = [(0, {}), *self.quotas[namespace]]
        current = [shares.get(pool, Share()) for shares in _since(history, knowledge.gpuquotas)]
        return Share(*map(max, zip(*current, strict=True)))

    def quotas_since(self, namespace: str, knowledge: Knowledge) -> list[Object | None]:
        """The ResourceQuota of a namespace, as it stood and came to stand since somebody knew this much."""
        return _since([(0, None), *self.resource_quotas[namespace]], knowledge.resourcequotas)

    def goes(self, node: str, knowledge: Knowledge) -> bool:
        """Whether a Node was in deletion, in every version, since somebody knew this much."""
        return all(
            held is not None and held["metadata"].get("deletionTimestamp")
            for held in _since(self.nodes[node], knowledge.nodes)
        )

    def scale_up(self, pool: str, known: int) -> list[Object]:
        """All that a pool said of scaling up since somebody knew this version of it."""
        return [
            held["spec"].get("scaleUp", {"maxJobs": 0, "timeoutSeconds": 900})
            for there in _since(self.pools, known)
            for held in there
            if held["metadata"]["name"] == pool
        ]

    def without_node(self, pool: str) -> set[str]:
        """UIDs of jobs of a pool, some of them gone, with live pods that wait for any node to come.

        Not of those that the operator may just have told to stop.
        """
        waiting = {owner_of(pod) for pod in self.server.all("pods") if not wanted_node(pod) and self.live(pod)}
        found = {uid: self.job(uid) for uid in waiting}
        return {
            uid
            for uid, job in found.items()
            if job is not None and job["spec"]["pool"] == pool and (uid in self.last or self._goes_on(job))
        }

    @staticmethod
    def _goes_on(job: Object) -> bool:
        return (
            phase_of(job) in ("Admitted", "Running")
            and job["metadata"]["generation"] == job["status"]["observedGeneration"]
            and not job["metadata"].get("deletionTimestamp")
        )

    def on_hold(self, pool: str, knowledge: Knowledge) -> bool:
        """Whether a pool has been on hold, in every version, since somebody knew this much."""
        versions = [
            [held["spec"].get("stopPolicy", "None") for held in there if held["metadata"]["name"] == pool]
            for there in _since(self.pools, knowledge.gpupools)
        ]
        return all(policies and policies[0] != "None" for policies in versions)

    def absent(self, pool: str, knowledge: Knowledge) -> bool:
        """Whether a pool has not been there, in any version, since somebody knew this much."""
        since = _since(self.pools, knowledge.gpupools)
        return not any(held["metadata"]["name"] == pool for there in since for held in there)

    def is_current(self, pod: Object, known: int) -> bool:
        """Whether a pod is a live one of a job that is there, as somebody who knows of pods up to this version sees it."""
        uid = pod["metadata"]["uid"]
        held = self.server.get("pods", key_of(pod))
        if (
            held is None
            or held["metadata"]["uid"] != uid
            or not self.live(held)
            or self.bound_at.get(uid, known) >= known
        ):
            return False
        return bool(owner_of(held)) and owner_of(held) not in self.last

    def ours_in(self, namespace: str, pool: str) -> list[Object]:
        """Live pods of ours in a namespace, by their job's pool."""
        return [
            p
            for p in self.server.all("pods")
            if p["metadata"]["namespace"] == namespace
            and owner_of(p)
            and self.live(p)
            and (self.job(owner_of(p)) or {}).get("spec", {}).get("pool") == pool
        ]


def _since(history: list[tuple[int, Any]], version: int) -> list[Any]:
    """What stood at a version, and all that came after."""
    return [value for i, (_, value) in enumerate(history) if i + 1 == len(history) or history[i + 1][0] > version]


def key_of(obj: Object) -> Key:
    """Namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

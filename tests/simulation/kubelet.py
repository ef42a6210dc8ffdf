"""Containers: they start, report, end in every way the failure rules know, and stop on SIGTERM with a checkpoint.

What runs on a machine and what its Node and Pod objects say are two things: a machine that is cut off goes on running.
"""

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from simulation.api import INIT, SIDECAR
from simulation.server import Change, Key, Object
from simulation.truth import label

if TYPE_CHECKING:
    from simulation.world import World

AUTHOR = "kubelet"
WAITING, BEGINNING, RUNNING, ENDED, LOST = "waiting", "beginning", "running", "ended", "lost"

# How a container may end, or fail to begin; every row of API.md's failure rules. "ok" is what the rest does.
FATES = (
    *("ok", "exit:1", "exit:2", "exit:3", "exit:4", "exit:75", "exit:137", "oom", "evicted", "disrupted"),
    *("admission", "image", "hiccup", "unbound", "vetoed", "unclaimed", "unseen", "unstarted", "vanish"),
    *("init:image", "init:1", "init:137", "init:oom", "init:hangs", "init:slow"),  # a container before the trainer
    *("sidecar:0", "sidecar:1"),  # a container beside it fails, and the trainer ends later, with this code
)
_INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
_FAILED = {"terminated": {"exitCode": 1, "reason": "Error"}}


@dataclass
class Container:
    """One pod's container on its machine."""

    pod: Object  # as bound
    node: str
    fate: str
    seconds: float  # of work
    chance: random.Random
    bound: float  # since when it is here
    state: str = WAITING
    started: str = ""
    ended: str = ""
    code: int = 0
    reason: str = ""
    sequence: int = 0
    percent: int = 0
    said: str = ""  # its termination message
    last_words: str = ""  # what it will say instead
    gpu: str = ""  # the physical one that the device plugin chose
    told: bool = False  # the API server knows its end
    stopping: bool = False
    sidecar: bool = False  # another container runs beside it, and goes on when it has ended
    alone: bool = False  # that one has failed

    @property
    def key(self) -> Key:
        """The pod's key."""
        return self.pod["metadata"]["namespace"], self.pod["metadata"]["name"]


class Kubelet:
    """All machines' kubelets; they act on bound pods of ours."""

    with_results = True  # in the reports of trainings

    def __init__(self, world: "World") -> None:
        self.world = world
        self.containers: dict[str, Container] = {}  # by pod UID

    def runs(self, uid: str) -> bool:
        """Whether a container of it runs, whatever the API server says."""
        found = self.containers.get(uid)
        return found is not None and found.state in (BEGINNING, RUNNING)

    def begins_since(self, uid: str) -> float | None:
        """Since when its node has it, if its trainer has not started yet, and neither it nor the pod has ended."""
        found = self.containers.get(uid)
        return found.bound if found is not None and found.state in (WAITING, BEGINNING) else None

    def on(self, node: str) -> list[Container]:
        """The containers of a machine."""
        return [container for container in self.containers.values() if container.node == node]

    def pod_changed(self, change: Change) -> None:
        """A pod was bound, is to stop, or is gone."""
        uid = change.new["metadata"]["uid"]
        if change.type == "DELETED":
            self.containers.pop(uid, None)
            return
        node = change.new["spec"].get("nodeName")
        if node and uid not in self.containers and self.world.is_ours(change.new):
            chance = random.Random(f"{self.world.seed}/{change.key}/{node}")
            fate, seconds = self.world.fate(change.new)
            work = seconds * chance.uniform(0.7, 1.3)
            made = Container(change.new, node, fate, work, chance, self.world.loop.time())
            made.sidecar = SIDECAR in made.pod["spec"]["containers"]
            self.containers[uid] = made
            self.world.after(chance.uniform(0.1, 3), self._start, uid)
        elif change.new["metadata"].get("deletionTimestamp") and uid in self.containers:
            self._stop(uid)

    # --- the ways of a machine

    def lose(self, node: str) -> None:
        """The machine is off: nothing runs on it."""
        for container in self.on(node):
            container.stopping = False
            if container.state in (BEGINNING, RUNNING):
                container.state, container.code, container.reason = LOST, 137, "ContainerStatusUnknown"

    def sync(self, node: str) -> None:
        """The machine is connected again: what happened is told, what was asked is done."""
        for container in self.on(node):
            uid = container.pod["metadata"]["uid"]
            pod = self.world.server.get("pods", container.key)
            if pod is None:
                continue
            if container.state == LOST:
                self._end(uid, container.code, container.reason)
            elif container.state == ENDED and not container.told:
                self._tell(uid)
            elif pod["metadata"].get("deletionTimestamp"):
                pass
            elif container.state == WAITING:
                self.world.after(container.chance.uniform(0.1, 3), self._start, uid)
            elif container.state == BEGINNING:
                self.world.after(container.chance.uniform(0.1, 3), self._begun, uid)
            if pod["metadata"].get("deletionTimestamp"):
                self._stop(uid)

    # --- one container

    def _here(self, uid: str) -> tuple[Container, Object] | None:
        """The container and its pod, when its kubelet can act and talk."""
        container = self.containers.get(uid)
        if container is None or not self.world.machines.reachable(container.node):
            return None
        pod = self.world.server.get("pods", container.key)
        return None if pod is None or pod["metadata"]["uid"] != uid else (container, pod)

    def _start(self, uid: str) -> None:
        found = self._here(uid)
        if found is None or found[0].state != WAITING or found[1]["metadata"].get("deletionTimestamp"):
            return
        container, _ = found
        fate = container.fate
        if self.world.loop.time() < self.world.registry_back and fate not in ("admission", "unstarted"):
            self._waits(container, "ErrImagePull", "dial tcp 10.0.0.9:443: connect: connection refused")
            self.world.after(5, self._start, uid)
        elif fate == "admission":
            container.state, container.told = ENDED, True
            words = "Allocate failed: device plugin is not there"
            self._status(container, phase="Failed", reason="UnexpectedAdmissionError", message=words)
        elif fate in ("image", "hiccup", "init:image"):
            self._waits(container, "ErrImagePull", "not found")
            self.world.after(5, self._still_waits, uid)
            if fate == "hiccup":
                container.fate = "ok"
                self.world.after(15, self._start, uid)
        elif fate == "unstarted":
            self._waits(container, "ContainerCreating", "")
        elif fate.startswith("init:"):
            container.state, container.started = BEGINNING, self.world.stamp()
            self._beginning(container, {"running": {"startedAt": container.started}})
            self.world.after(container.chance.uniform(0.5, 12), self._begun, uid)
        else:
            container.state, container.started = RUNNING, self.world.stamp()
            container.gpu = f"GPU-{container.node}-{container.chance.randrange(2)}"
            running = {"name": "trainer", "state": {"running": {"startedAt": container.started}}}
            self._status(container, phase="Running", ready=True, containers=[running])
            self.world.after(container.seconds, self._finish, uid)
            if fate.startswith("sidecar:"):
                self.world.after(container.seconds * container.chance.uniform(0.1, 0.9), self._sidecar_fails, uid)
            if label(container.pod, "rank") in ("", "0"):  # of several nodes, the first one tells
                self.world.after(container.chance.uniform(1, 6), self._report, uid)

    def _begun(self, uid: str) -> None:
        """The container before the trainer comes to its end, if it does."""
        found = self._here(uid)
        if found is None or found[0].state != BEGINNING or found[0].stopping or found[0].fate == "init:hangs":
            return
        container, _ = found
        if self.world.frozen:
            self.world.after(5, self._begun, uid)
        elif container.fate == "init:slow":
            self._beginning(container, {"terminated": {"exitCode": 0, "reason": "Completed"}})
            container.state, container.fate = WAITING, "ok"
            self._start(uid)
        else:
            killed = container.fate == "init:oom"
            container.code = 137 if killed else int(container.fate.partition(":")[2])
            container.reason = "OOMKilled" if killed else "Error"
            container.state, container.ended = ENDED, self.world.stamp()
            self._tell(uid)

    def _beginning(self, container: Container, state: Object, *, phase: str = "Pending") -> None:
        """What is known of the container before the trainer; the trainer waits for it."""
        trainer = {"name": "trainer", "state": _INITIALIZING}
        self._status(container, phase=phase, containers=[trainer], begin=[{"name": INIT["name"], "state": state}])

    def _still_waits(self, uid: str) -> None:
        found = self._here(uid)
        if found and found[0].state == WAITING and not found[1]["metadata"].get("deletionTimestamp"):
            self._waits(found[0], "ImagePullBackOff", "Back-off pulling image: ErrImagePull: not found")

    def _waits(self, container: Container, reason: str, message: str) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        if container.fate.startswith("init:"):
            self._beginning(container, state)
        else:
            self._status(container, phase="Pending", containers=[{"name": "trainer", "state": state}])

    def _sidecar_fails(self, uid: str) -> None:
        found = self._here(uid)
        if found is None or found[0].state != RUNNING or found[0].stopping:
            return
        container, pod = found
        container.alone = True
        trainer = [c for c in pod["status"]["containerStatuses"] if c["name"] == "trainer"]
        self._status(container, phase="Running", containers=trainer)

    def _finish(self, uid: str) -> None:
        """Its work is done, or its fate comes."""
        container = self.containers.get(uid)
        if container is None or container.state != RUNNING or container.stopping:
            return
        if self.world.frozen:
            self.world.after(5, self._finish, uid)
            return
        fate = container.fate
        if fate == "vanish" and not self.world.healed:
            self.world.server.remove("pods", container.key, "someone")
        elif fate in ("evicted", "disrupted"):
            self._end(uid, 137, "Error", disrupted=True, pod_reason="Evicted" * (fate == "evicted"))
        elif fate == "oom":
            self._end(uid, 137, "OOMKilled")
        else:
            code = int(fate.partition(":")[2] or 0)
            self._end(uid, code, "Completed" if code == 0 else "Error")

    def _stop(self, uid: str) -> None:
        """SIGTERM, at the latest SIGKILL."""
        found = self._here(uid)
        if found is None or found[0].stopping:
            return
        container, pod = found
        container.stopping = True
        if container.state in (BEGINNING, RUNNING):
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            obeys = container.chance.random() < 0.85
            delay = container.chance.uniform(0.1, min(grace, 5)) if obeys else grace
            code = 143 if container.state == BEGINNING else 75
            self.world.after(delay, self._stopped, uid, code if obeys else 137)
        else:
            self.world.after(0.2, self._remove, uid)

    def _stopped(self, uid: str, code: int) -> None:
        container = self.containers.get(uid)
        if container is not None and container.state in (BEGINNING, RUNNING):
            self._end(uid, code, "Error")
            self.world.after(0.2, self._remove, uid)

    def _remove(self, uid: str) -> None:
        found = self._here(uid)
        if found is not None:
            self.world.server.remove("pods", found[0].key, AUTHOR)
        elif (container := self.containers.get(uid)) is not None:
            container.stopping = False  # said again when it is connected

    def _end(self, uid: str, code: int, reason: str, *, disrupted: bool = False, pod_reason: str = "") -> None:
        container = self.containers[uid]
        if container.state == RUNNING and container.chance.random() < 0.7 and label(container.pod, "rank") in ("", "0"):
            container.sequence += 1
            container.percent = 100 if code == 0 else container.percent
            container.said = json.dumps(self._body(container, final=True))
        container.said = container.last_words or container.said
        container.state, container.code, container.reason = ENDED, code, reason
        container.ended = self.world.stamp()
        self._tell(uid, disrupted=disrupted, pod_reason=pod_reason)

    def _tell(self, uid: str, *, disrupted: bool = False, pod_reason: str = "") -> None:
        found = self._here(uid)
        if found is None:
            return
        container, _ = found
        container.told = True
        ended = {
            "exitCode": container.code,
            "reason": container.reason,
            "message": container.said,
            "startedAt": container.started or None,
            "finishedAt": container.ended,
        }
        if container.fate.startswith("init:"):
            self._beginning(container, {"terminated": ended}, phase="Failed")
            return
        self._status(
            container,
            phase="Succeeded" if container.code == 0 else "Failed",
            containers=[{"name": "trainer", "state": {"terminated": ended}}],
            disrupted=disrupted,
            reason=pod_reason,
        )

    def _status(
        self,
        container: Container,
        *,
        ready: bool = False,
        containers: Any = None,
        begin: Any = None,
        disrupted: bool = False,
        **rest: str,
    ) -> None:
        old = self.world.server.get("pods", container.key)
        assert old is not None
        conditions = [c for c in old["status"].get("conditions") or () if c["type"] != "Ready"]
        conditions.append({"type": "Ready", "status": str(ready)})
        if disrupted:
            conditions.append({"type": "DisruptionTarget", "status": "True"})
        status = {**old["status"], **{k: v for k, v in rest.items() if v}, "conditions": conditions}
        if begin is not None:
            status["initContainerStatuses"] = begin
        if containers is not None:
            runs = {"running": {"startedAt": self.world.stamp()}}
            state = _INITIALIZING if begin else _FAILED if container.alone else runs
            beside = {"name": SIDECAR["name"], "state": state}
            status["containerStatuses"] = [beside, *containers] if container.sidecar else containers
        if container.alone and container.state == ENDED:
            status["phase"] = "Failed"  # whatever the trainer has ended with
        elif (
            container.sidecar
            and not begin
            and container.state == ENDED
            and not (container.stopping or disrupted or rest.get("reason"))
        ):
            status["phase"] = "Running" if container.reason != "ContainerStatusUnknown" else status["phase"]
        self.world.server.write("pods", container.key, {"status": status}, AUTHOR)

    # --- what it reports

    def _report(self, uid: str) -> None:
        container = self.containers.get(uid)
        if container is None or container.state != RUNNING:
            return
        chance = container.chance
        self.world.after(chance.uniform(4, 14), self._report, uid)
        if self.world.frozen or not self.world.machines.reachable(container.node):
            return
        container.sequence += chance.choice((0, 1, 1, 1, 2))  # 0: the last one again
        moved = chance.randrange(25) - 3 * (chance.random() < 0.1)
        container.percent = max(0, min(99, container.percent + moved))
        body = self._body(container)
        if chance.random() < 0.05:  # an old one that was held up on its way
            body["trainerStatus"]["rfuav"]["sequence"] = max(0, container.sequence - 1)
            body["trainerStatus"]["progressPercentage"] = 1
        self.world.post(container.pod, orjson.dumps(body))

    def _body(self, container: Container, *, final: bool = False) -> Object:
        epoch = container.percent // 10
        ours: Object = {"sequence": container.sequence, "epoch": epoch, "totalEpochs": 10, "gpuUUID": container.gpu}
        if epoch:
            ours["checkpoint"] = {"uri": "pvc://results/checkpoints", "epoch": epoch}
        if self.with_results and label(container.pod, "kind") == "TrainingJob":
            curve = [int(label(container.pod, "attempt")), container.sequence]
            ours["results"] = {"history": {"epochs": curve}, **({"classes": ["a"]} if container.sequence % 2 else {})}
        if final:
            ours["final"] = True
        return {"trainerStatus": {"progressPercentage": container.percent, "rfuav": ours}}

"""The kube-scheduler, and the garbage collector: pods are bound where they fit, and go when their owner is gone."""

import random
from typing import TYPE_CHECKING

from simulation.autoscaler import may_go_to
from simulation.server import JOBS, Change, Object
from simulation.truth import asked, is_live_phase, wanted_node
from simulation.volumes import refusal, zone_of

if TYPE_CHECKING:
    from simulation.world import World

RETRY = 5.0  # seconds
REFUSALS = {  # by fate of the pod
    "unbound": "1 Insufficient ephemeral-storage",
    "vetoed": "1 node(s) had volume node affinity conflict",
    "unclaimed": "pod has unbound immediate PersistentVolumeClaims",
}
REPELLING = ("NoSchedule", "NoExecute")


def is_left_alone(pod: Object) -> bool:
    """Whether the scheduler does not look at a pod: it has gates, or is another scheduler's."""
    return bool(pod["spec"].get("schedulingGates") or pod["spec"].get("schedulerName"))


class Scheduler:
    """Binds pods of ours; those of others are made bound."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def pod_changed(self, change: Change) -> None:
        """A new pod wants a node."""
        if change.type == "ADDED" and not change.new["spec"].get("nodeName") and not is_left_alone(change.new):
            chance = random.Random(f"{self.world.seed}/bind/{change.key}")
            self.world.after(chance.uniform(0.02, 1), self._bind, change.new["metadata"]["uid"], change.key)
        if change.type == "ADDED":
            self._collect_if_orphan(change.new)

    def _bind(self, uid: str, key: tuple[str, str]) -> None:
        pod = self.world.server.get("pods", key)
        if pod is None or pod["metadata"]["uid"] != uid or pod["metadata"].get("deletionTimestamp"):
            return
        node = wanted_node(pod)
        names = sorted(n["metadata"]["name"] for n in self.world.server.all("nodes"))
        fate = self.world.fate(pod)[0]
        if fate == "unseen":
            return
        if fate in REFUSALS:
            why = REFUSALS[fate]
        elif refused := refusal(self.world, pod):
            why = refused
        elif node:
            why = self._mismatch(pod, node)
        else:
            node = next((name for name in names if not self._mismatch(pod, name)), "")
            why = "" if node else "Insufficient nvidia.com/gpu"
            if why:
                self.world.autoscaler.unschedulable(pod)
        old = [c for c in pod["status"].get("conditions") or () if c["type"] != "PodScheduled"]
        if why:
            others = f", {len(names)} node(s) didn't satisfy plugin(s) [NodeAffinity]." if node else "."
            words = f"0/{len(names)} nodes are available: {why}{others}"
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
            last = next((c for c in pod["status"].get("conditions") or () if c["type"] == "PodScheduled"), condition)
            condition["lastTransitionTime"] = last.get("lastTransitionTime") or self.world.stamp()
            self.world.server.write(
                "pods", key, {"status": {**pod["status"], "conditions": [*old, condition]}}, "sched"
            )
            self.world.after(RETRY, self._bind, uid, key)
            return
        condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.world.stamp()}
        changes = {
            "spec": {**pod["spec"], "nodeName": node},
            "status": {**pod["status"], "conditions": [*old, condition]},
        }
        self.world.server.write("pods", key, changes, "scheduler")

    def _mismatch(self, pod: Object, name: str) -> str:
        """Why the node does not take it now; empty: it does."""
        node = self.world.server.get("nodes", ("", name))
        if node is None:
            return "node(s) didn't satisfy plugin(s) [NodeAffinity]"
        tolerated = {t.get("key") for t in pod["spec"].get("tolerations") or ()}
        taints = node["spec"].get("taints") or ()
        if node["spec"].get("unschedulable") or any(
            t["effect"] in REPELLING and t["key"] not in tolerated for t in taints
        ):
            return "1 node(s) were unschedulable or had untolerated taints"
        if not may_go_to(pod, node, self._on(name)):
            return "1 node(s) didn't match Pod's node affinity/selector"
        if (zone := zone_of(pod)) and node["metadata"]["labels"].get("zone") != zone:
            return "1 node(s) had volume node affinity conflict"
        return "1 Insufficient nvidia.com/gpu" if not self.fits(pod, node) else ""

    def fits(self, pod: Object, node: Object) -> bool:
        """Whether what is allocatable suffices for it and for what is bound there."""
        room = node["status"]["allocatable"]
        used = [asked(p) for p in (*self._on(node["metadata"]["name"]), pod)]
        return (
            sum(u.gpus for u in used) <= int(room.get("nvidia.com/gpu", "0"))
            and sum(u.cpu_milli for u in used) <= int(room["cpu"]) * 1000
            and sum(u.memory for u in used) <= int(room["memory"].removesuffix("Gi")) * 2**30
        )

    def _on(self, name: str) -> list[Object]:
        return [p for p in self.world.server.all("pods") if p["spec"].get("nodeName") == name and is_live_phase(p)]

    # --- owners

    def job_changed(self, change: Change) -> None:
        """A job is gone: its pods follow."""
        if change.type == "DELETED":
            for pod in self.world.server.all("pods"):
                self._collect_if_orphan(pod)

    def _collect_if_orphan(self, pod: Object) -> None:
        owners = pod["metadata"].get("ownerReferences") or ()
        known = {job["metadata"]["uid"] for resource in JOBS for job in self.world.server.all(resource)}
        if owners and not any(owner["uid"] in known for owner in owners):
            chance = self.world.chance["collector"]
            self.world.after(chance.choice((0.05, 0.5, 5)), self._collect, pod["metadata"]["uid"], pod)

    def _collect(self, uid: str, seen: Object) -> None:
        pod = self.world.server.get("pods", (seen["metadata"]["namespace"], seen["metadata"]["name"]))
        if pod is not None and pod["metadata"]["uid"] == uid:
            self.world.api.delete_pod(pod, "collector")

"""Nodes and the machines behind them: cut off, broken, removed, cordoned, tainted out-of-service, back again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.server import Change, Object
from simulation.truth import is_live_phase

if TYPE_CHECKING:
    from simulation.world import World

AUTHOR = "node-controller"
UNREACHABLE = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
NOTICED_AFTER = 5.0  # seconds of silence after which a node is not ready
EVICTED_AFTER = 25.0  # seconds after which its pods are deleted


def is_going(node: Object | None) -> bool:
    """Whether a Node is being deleted."""
    return node is not None and bool(node["metadata"].get("deletionTimestamp"))


@dataclass
class Machine:
    """What stands behind a node."""

    name: str
    node: Object  # as it registers itself
    up: bool = True
    connected: bool = True
    absences: int = 0


class Machines:
    """All of them."""

    def __init__(self, world: "World", nodes: list[Object]) -> None:
        self.world = world
        self.all = {node["metadata"]["name"]: Machine(node["metadata"]["name"], node) for node in nodes}

    def register(self) -> None:
        """Make the Node objects."""
        for machine in self.all.values():
            self.world.server.create("nodes", machine.node, AUTHOR)

    def add(self, node: Object) -> None:
        """A machine more, and its Node."""
        name = node["metadata"]["name"]
        self.all[name] = Machine(name, node)
        self.world.server.create("nodes", node, AUTHOR)

    def reachable(self, name: str) -> bool:
        """Whether its kubelet can act and talk."""
        machine = self.all.get(name)
        return machine is not None and machine.up and machine.connected

    # --- what may happen to one

    def cut_off(self, name: str, *, up: bool) -> None:
        """The network fails (`up`: what runs goes on), or the machine does."""
        machine = self.all.get(name)
        if machine is None or not machine.connected:
            return
        machine.connected = False
        machine.absences += 1
        if not up:
            self._switch_off(machine)
        self.world.after(NOTICED_AFTER, self._notice, name, machine.absences)
        self.world.after(EVICTED_AFTER, self._evict, name, machine.absences)

    def remove(self, name: str, *, for_good: bool = False) -> None:
        """The machine is taken away, its Node deleted; `for_good`: it does not come back."""
        machine = self.all.get(name)
        if machine is None:
            return
        machine.connected = False
        machine.absences += 1
        self._switch_off(machine)
        if self._node(name) is not None:
            self.world.server.remove("nodes", ("", name), "someone")
        if for_good:
            del self.all[name]

    def out_of_service(self, name: str) -> None:
        """Somebody made sure that it is off, and says so."""
        machine = self.all.get(name)
        if machine is None or machine.connected or self._node(name) is None:
            return
        self._switch_off(machine)
        self._taint(name, OUT_OF_SERVICE)
        self.world.after(2, self._collect_terminating, name, machine.absences)

    def back(self, name: str) -> None:
        """It is up and connected, its Node as new."""
        machine = self.all.get(name)
        if machine is None:
            return
        if is_going(self._node(name)):
            self.remove(name)
        machine.up = machine.connected = True
        if self._node(name) is None:
            self.world.server.create("nodes", machine.node, AUTHOR)
        else:
            parts = {part: machine.node[part] for part in ("spec", "status")}
            self.world.server.write("nodes", ("", name), parts, AUTHOR)
            self.label(name)
        self.world.kubelet.sync(name)

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """`kubectl cordon`, or its end."""
        if (node := self._node(name)) is not None:
            self.world.server.write(
                "nodes", ("", name), {"spec": {**node["spec"], "unschedulable": cordoned}}, "someone"
            )

    def delete(self, name: str) -> None:
        """The Node is deleted, and held by a finalizer: what runs there goes on."""
        if (node := self._node(name)) is not None and not is_going(node):
            marks = {"deletionTimestamp": self.world.stamp(), "finalizers": ["example.com/machine"]}
            self.world.server.meta("nodes", ("", name), marks, "someone")

    def resize(self, name: str, slots: int) -> None:
        """The device plugin offers another number of slots: GPUs are unhealthy, or shared otherwise."""
        if (node := self._node(name)) is not None:
            most = max(slots, int(node["status"]["capacity"]["nvidia.com/gpu"]))
            room = {
                "capacity": {"nvidia.com/gpu": str(most)},
                "allocatable": {**node["status"]["allocatable"], "nvidia.com/gpu": str(slots)},
            }
            self.world.server.write("nodes", ("", name), {"status": {**node["status"], **room}}, AUTHOR)

    def label(self, name: str, *, gpus: bool = True) -> None:
        """GPU feature discovery sets its labels; without `gpus`: it removes them, as when it is started again."""
        machine = self.all.get(name)
        if machine is not None and self._node(name) is not None:
            labels = machine.node["metadata"]["labels"]
            left = (
                labels if gpus else {key: value for key, value in labels.items() if not key.startswith("nvidia.com/")}
            )
            self.world.server.meta("nodes", ("", name), {"labels": left}, AUTHOR)

    # --- what follows

    def _node(self, name: str) -> Object | None:
        return self.world.server.get("nodes", ("", name))

    def _switch_off(self, machine: Machine) -> None:
        machine.up = False
        self.world.kubelet.lose(machine.name)

    def _taint(self, name: str, key: str) -> None:
        node = self._node(name)
        assert node is not None
        taints = [t for t in node["spec"].get("taints") or () if t["key"] != key]
        spec = {**node["spec"], "taints": [*taints, {"key": key, "effect": "NoExecute"}]}
        self.world.server.write("nodes", ("", name), {"spec": spec}, AUTHOR)

    def _still_away(self, name: str, absence: int) -> bool:
        machine = self.all.get(name)
        return (
            machine is not None
            and machine.absences == absence
            and not machine.connected
            and self._node(name) is not None
        )

    def _notice(self, name: str, absence: int) -> None:
        if self._still_away(name, absence):
            node = self._node(name)
            assert node is not None
            status = {**node["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}
            self.world.server.write("nodes", ("", name), {"status": status}, AUTHOR)
            self._taint(name, UNREACHABLE)

    def _evict(self, name: str, absence: int) -> None:
        if self._still_away(name, absence):
            for pod in self._pods(name):
                if is_live_phase(pod):
                    self._disrupt(pod)
                    self.world.api.delete_pod(self._again(pod), AUTHOR)

    def node_changed(self, change: Change) -> None:
        """A Node is gone: the collector takes its pods."""
        if change.type == "DELETED":
            self.world.after(self.world.chance["podgc"].uniform(3, 20), self._collect_all, change.key[1])

    def _collect_all(self, name: str) -> None:
        if self._node(name) is not None:
            return
        for pod in self._pods(name):
            if is_live_phase(pod):
                self._disrupt(pod, phase="Failed")
            self._remove(pod)

    def _collect_terminating(self, name: str, absence: int) -> None:
        if self._still_away(name, absence):
            for pod in self._pods(name):
                if pod["metadata"].get("deletionTimestamp"):
                    self._remove(pod)
            self.world.after(5, self._collect_terminating, name, absence)

    def _pods(self, name: str) -> list[Object]:
        return [pod for pod in self.world.server.all("pods") if pod["spec"].get("nodeName") == name]

    def _again(self, pod: Object) -> Object:
        found = self.world.server.get("pods", (pod["metadata"]["namespace"], pod["metadata"]["name"]))
        assert found is not None
        return found

    def _remove(self, pod: Object) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if self.world.server.get("pods", key) is not None:
            self.world.server.remove("pods", key, AUTHOR)

    def _disrupt(self, pod: Object, *, phase: str = "") -> None:
        conditions = [c for c in pod["status"].get("conditions") or () if c["type"] != "DisruptionTarget"]
        status = {**pod["status"], "conditions": [*conditions, {"type": "DisruptionTarget", "status": "True"}]}
        if phase:
            status["phase"] = phase
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.world.server.write("pods", key, {"status": status}, AUTHOR)

"""A cluster autoscaler: pods that wait for any node make it add a machine, late or never; idle machines go again."""

import random
from typing import TYPE_CHECKING, Any

from simulation.script import SHAPES, node_of
from simulation.server import Object
from simulation.truth import asked, is_live_phase
from simulation.volumes import zone_of

if TYPE_CHECKING:
    from simulation.world import World

DELAYS = (3.0, 8.0, 20.0, 45.0, 90.0, None)  # seconds until a machine is there; None: no machine for this pod
MOST = 3  # machines at a time
MISFIT = 0.3  # share of machines whose slots are enough and whose GPUs are not what the job needs, where there are such
SHARED = 0.5  # share of pods that are expected to find room on a machine that comes for another
PLUGIN = 3.0  # seconds until a new machine's device plugin offers its slots
LABELS = (0.0, 0.0, 4.0, 15.0, 30.0)  # seconds until feature discovery has labelled it; 0: it comes with its labels
IDLE = 30.0  # seconds between two looks at whether a machine is idle; twice: it goes


class Autoscaler:
    """Asked by the scheduler whenever a pod without a node of its own finds none."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.sold_out = 0.0  # the provider has no machines until then
        self._for: dict[str, str] = {}  # pod UID -> the machine that is to come for it
        self._coming: dict[str, Object] = {}
        self._there: set[str] = set()

    def unschedulable(self, pod: Object) -> None:
        """A pod finds no node: perhaps a machine is added for it."""
        uid, healed = pod["metadata"]["uid"], self.world.healed
        if uid in self._for:
            return
        machines = len(self._there) + len(self._coming)
        if not healed and (self.world.loop.time() < self.sold_out or machines >= MOST):
            return  # the scheduler asks again
        chance = random.Random(f"{self.world.seed}/autoscaler/{uid}")
        delay = chance.choice(DELAYS)
        if healed:
            delay = DELAYS[0]
        elif delay is None:
            return
        node = self._node(pod, chance)
        other = next((n for n, coming in self._coming.items() if _same_kind(coming, node)), None)
        if other is not None and chance.random() < SHARED:
            self._for[uid] = other
            return
        name = node["metadata"]["name"]
        self._for[uid] = name
        self._coming[name] = node
        self.world.after(delay, self._arrive, name)

    def _node(self, pod: Object, chance: random.Random) -> Object:
        """A machine of a kind that the pod's selector names and whose limits let it in."""
        gpus, zone = asked(pod).gpus, (pod["spec"].get("nodeSelector") or {}).get("zone") or chance.choice("ab")
        zone = zone_of(pod) or zone
        shapes = [shape for shape in SHAPES if _suits(shape, gpus)]
        misfits = [shape for shape in SHAPES if not _suits(shape, gpus) and gpus <= shape[1]]
        if misfits and not self.world.healed and chance.random() < MISFIT:
            shapes = misfits
        return node_of(f"s{len(self._for)}", *chance.choice(shapes), zone)

    def _arrive(self, name: str) -> None:
        node = self._coming.pop(name)
        self._there.add(name)
        slots = int(node["status"]["allocatable"]["nvidia.com/gpu"])
        self.world.machines.add(node)
        if slots:
            self.world.machines.resize(name, 0)
            self.world.after(PLUGIN, self.world.machines.resize, name, slots)
            if late := random.Random(f"{self.world.seed}/labels/{name}").choice(LABELS):
                self.world.machines.label(name, gpus=False)
                self.world.after(late, self.world.machines.label, name)
        self.world.after(IDLE, lambda: self._look(name, idle=False))

    def _look(self, name: str, *, idle: bool) -> None:
        """Take a machine away that was idle twice."""
        used = any(pod["spec"].get("nodeName") == name and is_live_phase(pod) for pod in self.world.server.all("pods"))
        if idle and not used and not self.world.healed and not self.world.frozen:
            self._there.discard(name)
            self.world.machines.remove(name, for_good=True)
            return
        self.world.after(IDLE, lambda: self._look(name, idle=not used))


def _suits(shape: tuple[int, int, int], gpus: int) -> bool:
    """Whether a machine of this shape takes a pod of so many GPUs under every pool's limits: several are not shared."""
    physical, slots, _ = shape
    return gpus <= min(physical, slots) and (gpus <= 1 or physical == slots)


def _same_kind(one: Object, other: Object) -> bool:
    def parts(node: Object) -> tuple[Any, Any]:
        return node["metadata"]["labels"], node["status"]["allocatable"]

    return parts(one) == parts(other)


def may_go_to(pod: Object, node: Object, there: list[Object]) -> bool:
    """Whether the affinities of a pod, and of the pods there, let it onto a node."""
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    return not any(_repels(pod, other) or _repels(other, pod) for other in there)


def kept_off(pod: Object) -> set[str]:
    """The nodes that it goes to only when no pod of a job is there."""
    affinity = pod["spec"].get("affinity") or {}
    terms = affinity.get("podAntiAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return {value for term in terms for one in _expressions(term) for value in one.get("values") or ()}


def _expressions(term: Object) -> list[Object]:
    found: list[Object] = term["labelSelector"]["matchExpressions"]
    assert found
    return found


def _holds(wanted: Object, labels: Object) -> bool:
    if wanted["operator"] == "In":
        return labels.get(wanted["key"]) in wanted["values"]
    assert wanted["operator"] == "Exists"
    return wanted["key"] in labels


def _repels(pod: Object, other: Object) -> bool:
    """Whether a required anti-affinity of the one pod names the other."""
    affinity = pod["spec"].get("affinity") or {}
    terms = affinity.get("podAntiAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    held = other["metadata"].get("labels") or {}
    for term in terms:
        everywhere = term.get("namespaceSelector") == {}
        if not everywhere and other["metadata"]["namespace"] != pod["metadata"]["namespace"]:
            continue
        if all(_holds(wanted, held) for wanted in _expressions(term)):
            return True
    return False

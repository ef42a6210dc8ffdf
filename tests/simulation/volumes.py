"""Claims and volumes: where they can be mounted, what the scheduler says of it, and claims that go and come back."""

from typing import TYPE_CHECKING, Any

from simulation.deeds import deed, one_of, seconds
from simulation.server import Object
from simulation.truth import claims_of, is_live_phase, wanted_node

if TYPE_CHECKING:
    from simulation.world import World

USER = "user"
SPACES = ("team", "lab")
CLAIMS = {  # name -> access modes, zone of the volume; "": it can be mounted everywhere
    "captures": ("ReadWriteMany", ""),
    "models": ("ReadWriteMany", ""),
    "results": ("ReadWriteMany", ""),
    "zoned": ("ReadWriteMany", "a"),
    "disk": ("ReadWriteOnce", ""),
    "exclusive": ("ReadWriteOncePod", ""),
}
EXTRA = one_of("", "", "", "", "", "", "zoned", "disk", "exclusive")  # what a job mounts beside its data


def register(world: "World") -> None:
    """Make what is missing of the claims and their volumes."""
    for namespace in SPACES:
        for name, (mode, zone) in CLAIMS.items():
            volume = f"pv-{namespace}-{name}"
            if world.server.get("persistentvolumes", ("", volume)) is None:
                spec: Object = {"accessModes": [mode]}
                if zone:
                    wanted = {"key": "zone", "operator": "In", "values": [zone]}
                    spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}}
                world.server.create("persistentvolumes", {"metadata": {"name": volume}, "spec": spec}, USER)
            if world.server.get("persistentvolumeclaims", (namespace, name)) is None:
                body = {
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"accessModes": [mode], "volumeName": volume},
                    "status": {"phase": "Bound", "accessModes": [mode]},
                }
                world.server.create("persistentvolumeclaims", body, USER)


@deed(2, namespace=one_of(*SPACES), name=one_of("captures", "results", "disk", "zoned"), seconds=seconds(1, 60))
def claim_gone(world: "World", *, namespace: str, name: str, seconds: float) -> None:
    """Nobody mounts it, somebody deletes it, and it is made again later."""
    pods = (pod for pod in world.server.all("pods") if pod["metadata"]["namespace"] == namespace)
    used = any(name in claims_of(pod) and is_live_phase(pod) for pod in pods)
    if not used and world.server.get("persistentvolumeclaims", (namespace, name)) is not None:
        world.server.remove("persistentvolumeclaims", (namespace, name), USER)
        world.after(seconds, register, world)


def refusal(world: "World", pod: Object) -> str:
    """Why the scheduler binds the pod nowhere as its claims are; empty: it does."""
    for name in claims_of(pod):
        key = pod["metadata"]["namespace"], name
        if world.server.get("persistentvolumeclaims", key) is None:
            return f'persistentvolumeclaim "{name}" not found'
        if is_of_one_pod(name) and any(
            other is not pod and wanted_node(other) and other["spec"].get("nodeName") for other in users(world, *key)
        ):
            return "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    return ""


def users(world: "World", namespace: str, claim: str) -> list[Object]:
    """Live pods that mount a claim."""
    pods = (pod for pod in world.server.all("pods") if pod["metadata"]["namespace"] == namespace)
    return [pod for pod in pods if claim in claims_of(pod) and world.truth.live(pod)]


def zone_of(pod: Object) -> str:
    """The zone that the pod's volumes are in; empty: any."""
    return next((zone for name in claims_of(pod) if (zone := CLAIMS[name][1])), "")


def is_of_one_pod(claim: str) -> bool:
    """Whether one pod mounts it at a time."""
    return CLAIMS[claim][0] == "ReadWriteOncePod"


def of_one_node(pod: Object) -> list[str]:
    """The pod's claims that one node mounts at a time."""
    return [name for name in claims_of(pod) if CLAIMS[name][0] != "ReadWriteMany"]


def template(volume: str) -> dict[str, Any]:
    """The part of a job's spec that mounts one more claim."""
    if not volume:
        return {}
    mounted = {"name": "extra", "persistentVolumeClaim": {"claimName": volume}}
    return {"podTemplate": {"volumes": [mounted], "volumeMounts": [{"name": "extra", "mountPath": "/extra"}]}}

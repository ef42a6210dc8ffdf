"""ResourceQuotas: what a namespace may use, which the API server enforces and a controller counts, somewhat late."""

from typing import TYPE_CHECKING, Any

from simulation.deeds import deed, one_of, seconds
from simulation.server import Change, Object
from simulation.truth import GPU, asked, is_live_phase

if TYPE_CHECKING:
    from simulation.world import World

USER, CONTROLLER = "user", "quota-controller"
NAME = "most"
PODS, GPUS = "pods", f"requests.{GPU}"
COUNTED_AFTER = (0.05, 4.0)  # seconds


@deed(
    4,
    namespace=one_of("team", "lab"),
    pods=one_of(None, 0, 1, 2, 4),
    gpus=one_of(None, 0, 1, 2),
    seconds=seconds(5, 120),
)
def resource_quota(world: "World", *, namespace: str, pods: int | None, gpus: int | None, seconds: float) -> None:
    """A ResourceQuota for a while: pods that are there stay, too many more are refused."""
    key, hard = (namespace, NAME), {k: str(most) for k, most in ((PODS, pods), (GPUS, gpus)) if most is not None}
    if world.server.get("resourcequotas", key) is None:
        body: Object = {"metadata": {"name": NAME, "namespace": namespace}, "spec": {"hard": hard}, "status": {}}
        uid = world.server.create("resourcequotas", body, USER)["metadata"]["uid"]
        world.after(seconds, _end, world, key, uid)
    else:
        world.server.write("resourcequotas", key, {"spec": {"hard": hard}}, USER)
    _count_soon(world, namespace)


def remove_all(world: "World") -> None:
    """There is none any more."""
    for held in world.server.all("resourcequotas"):
        world.server.remove("resourcequotas", (held["metadata"]["namespace"], NAME), USER)


def _end(world: "World", key: tuple[str, str], uid: str) -> None:
    held = world.server.get("resourcequotas", key)
    if held is not None and held["metadata"]["uid"] == uid:
        world.server.remove("resourcequotas", key, USER)


def needs(pod: Object) -> dict[str, int]:
    """What a pod takes of a quota."""
    return {PODS: 1, GPUS: asked(pod).gpus}


def amounts(held: Any) -> dict[str, int]:
    """Quantities by key."""
    return {key: int(text) for key, text in (held or {}).items()}


def over(quota: Object | None, wanted: dict[str, int]) -> str:
    """Why a quota has no place for so much more, by what it says is in use; empty: it has."""
    status = (quota or {}).get("status") or {}
    used = amounts(status.get("used"))
    for key, most in amounts(status.get("hard")).items():
        if wanted.get(key) and used.get(key, 0) + wanted[key] > most:
            return f"exceeded quota: {NAME}, requested: {key}={wanted[key]}, used: {key}={used[key]}, limited: {key}={most}"
    return ""


def admit(world: "World", pod: Object) -> str:
    """Why the API server refuses a pod; empty: it takes it, and counts it at once."""
    key = pod["metadata"]["namespace"], NAME
    held = world.server.get("resourcequotas", key)
    if held is None:
        return ""
    wanted, hard = needs(pod), amounts(held["spec"]["hard"])
    known = held["status"].get("used") or {}
    if unknown := [name for name in hard if wanted[name] and name not in known]:
        return f"status unknown for quota: {NAME}, resources: {','.join(unknown)}"
    if words := over(held, wanted):
        return words
    used = {name: str(int(text) + wanted[name]) for name, text in known.items()}
    world.server.write("resourcequotas", key, {"status": {**held["status"], "used": used}}, "quota-admission")
    return ""


def pod_changed(world: "World", change: Change) -> None:
    """The controller counts again when a pod has come or ended."""
    was = change.old is not None and is_live_phase(change.old)
    if change.type != "MODIFIED" or was != is_live_phase(change.new):
        _count_soon(world, change.key[0])


def _count_soon(world: "World", namespace: str) -> None:
    if world.server.get("resourcequotas", (namespace, NAME)) is not None:
        world.after(world.chance["quota"].uniform(*COUNTED_AFTER), _count, world, namespace)


def _count(world: "World", namespace: str) -> None:
    held = world.server.get("resourcequotas", (namespace, NAME))
    if held is None:
        return
    live = [p for p in world.server.all("pods") if p["metadata"]["namespace"] == namespace and is_live_phase(p)]
    used = {name: str(sum(needs(pod)[name] for pod in live)) for name in held["spec"]["hard"]}
    status = {"hard": held["spec"]["hard"], "used": used}
    world.server.write("resourcequotas", (namespace, NAME), {"status": status}, CONTROLLER)

"""What administrators do: pools, quotas, priorities. Rows of the table of deeds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulation.deeds import deed, one_of, seconds
from simulation.people import USER
from simulation.script import QUEUEING, draw_quota, pool, quota

if TYPE_CHECKING:
    from simulation.world import World


def edit_pool(world: "World", name: str = "default", **changes: Any) -> None:
    """`kubectl patch` of a pool's spec."""
    old = world.server.get("gpupools", ("", name))
    if old is not None:
        world.server.write("gpupools", ("", name), {"spec": {**old["spec"], **changes}}, USER)


@deed(2, training=one_of(1, 1, 2), inference=one_of(1, 2, 3), cpu=one_of(1, 2, 4))
def pool_limits(world: "World", *, training: int, inference: int, cpu: int) -> None:
    tiers = [{"minMemory": 0, "training": training, "inference": inference}]
    edit_pool(world, perGPU=tiers, perNodeCPU={"training": cpu, "inference": cpu})


@deed(2, policy=one_of("Hold", "HoldAndDrain", "None"))
def pool_stop(world: "World", *, policy: str) -> None:
    edit_pool(world, stopPolicy=policy)


@deed(1, placement=one_of("Pack", "Spread"), queueing=one_of(*QUEUEING))
def pool_order(world: "World", *, placement: str, queueing: str) -> None:
    edit_pool(world, placement=placement, queueing=queueing)


@deed(2, most=one_of(0, 1, 1, 2, 3), timeout=one_of(20, 40, 60))
def pool_scale_up(world: "World", *, most: int, timeout: int) -> None:
    edit_pool(world, scaleUp={"maxJobs": most, "timeoutSeconds": timeout})


@deed(3, seconds=one_of(3, 3, 20, 45, 90))
def pool_recreated(world: "World", *, seconds: float = 3) -> None:
    """Deleted, and there again a moment or a while later."""
    if world.server.get("gpupools", ("", "default")) is not None:
        world.server.remove("gpupools", ("", "default"), USER)
        world.after(seconds, make_pool, world)


def make_pool(world: "World") -> None:
    """The pool `default`, if it is not there."""
    if world.server.get("gpupools", ("", "default")) is None:
        world.server.create("gpupools", pool(world.script.setup), USER)


@deed(1, there=one_of(True, True, False))
def pool_lab(world: "World", *, there: bool) -> None:
    """A second pool takes the nodes of zone b, or gives them back."""
    held = world.server.get("gpupools", ("", "lab"))
    if there and held is None:
        world.server.create("gpupools", pool(world.script.setup, "lab", nodeSelector={"zone": "b"}), USER)
    elif not there and held is not None:
        world.server.remove("gpupools", ("", "lab"), USER)


@deed(
    5,
    name=one_of("urgent", "rfuav-training", "rfuav-inference"),
    value=one_of(0, 500, 1500, 5000),
    gone=one_of(0, 0, 2, 30),
)
def priority_class(world: "World", *, name: str, value: int, gone: int = 0) -> None:
    """Values of a class do not change; it is deleted and, after so many seconds, made again."""
    key = "", name

    def make() -> None:
        if world.server.get("priorityclasses", key) is None:
            world.server.create("priorityclasses", {"metadata": {"name": name}, "value": value}, USER)

    if world.server.get("priorityclasses", key) is not None:
        world.server.remove("priorityclasses", key, USER)
    if gone:
        world.after(gone, make)
    else:
        make()


@deed(1, name=one_of("urgent", "rfuav-training", "rfuav-inference"), value=one_of(0, 1500), seconds=seconds(5, 60))
def priority_class_away(world: "World", *, name: str, value: int, seconds: float) -> None:
    """Deleted, and made again later, perhaps with another value."""
    if world.server.get("priorityclasses", ("", name)) is not None:
        world.server.remove("priorityclasses", ("", name), USER)
        world.after(seconds, lambda: priority_class(world, name=name, value=value))


# --- quotas


def set_quota(world: "World", namespace: str, drawn: Mapping[str, Any], **spec: Any) -> None:
    """Make a GPUQuota, or change it."""
    key, body = (namespace, "default"), quota(namespace, drawn, **spec)
    if world.server.get("gpuquotas", key) is None:
        world.server.create("gpuquotas", body, USER)
    else:
        world.server.write("gpuquotas", key, {"spec": body["spec"]}, USER)


@deed(
    3,
    namespace=one_of("team", "lab"),
    drawn=lambda context: draw_quota(context.chance),
    policy=one_of("None", "None", "None", "Hold"),
)
def quota_changed(world: "World", *, namespace: str, drawn: dict[str, Any], policy: str) -> None:
    set_quota(world, namespace, drawn, stopPolicy=policy)


@deed(1, namespace=one_of("team", "lab"))
def quota_removed(world: "World", *, namespace: str) -> None:
    if world.server.get("gpuquotas", (namespace, "default")) is not None:
        world.server.remove("gpuquotas", (namespace, "default"), USER)

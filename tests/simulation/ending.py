"""The end of a history: faults stop, and what must come true in the end is waited for.

First a calm with everything as it is: statuses become what a freshly started core would decide from the server's state.
Then the world heals, and every job that can end has ended.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace
from simulation import resource_quotas, volumes
from simulation.admins import edit_pool, make_pool, quota_removed
from simulation.invariants import still_misplaced
from simulation.people import edit, end_others
from simulation.server import JOBS, Object
from simulation.truth import TERMINAL, owner_of, phase_of, wanted_node

from rfuav_kube import objects
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    JobStatus,
    PatchLimitsStatus,
    PatchStatus,
)
from rfuav_operator.shell import kinds
from rfuav_operator.shell.loop import Loop
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.reading.watched import watched

if TYPE_CHECKING:
    from simulation.world import World

CALM = 150.0  # seconds in which statuses settle
LATE = 5.0  # seconds until a time that has come is acted upon
LIMIT = 1800.0  # seconds within which one of the jobs ends, then the next
NEVER = ("NoMatchingNode", "ExceedsMaxQuota", "Misconfigured", "WaitingForTrainingJob")


async def come_to_rest(world: "World") -> None:
    """Nothing goes wrong any more and nothing happens: statuses settle."""
    world.log("---", "calm")
    world.faults.calm()
    world.slow.clear()
    world.api.pod_quota = None
    for replica in world.replicas:
        replica.isolate(isolated=False)
    world.frozen = True
    await _settle(world, "at rest")
    _nobody_waits_for_ever(world)
    _nobody_begins_for_ever(world)
    _nobody_is_unbound_for_ever(world)
    for wrong in still_misplaced(world.truth):
        world.fail(f"nobody_stays_where_there_is_no_room: {wrong}")
    world.frozen = False


async def heal(world: "World") -> None:
    """Nodes and pools are whole, nobody is suspended, containers succeed: every job ends."""
    world.log("---", "healed")
    world.healed = True
    for name in list(world.machines.all):
        world.machines.back(name)
    end_others(world)
    volumes.register(world)
    resource_quotas.remove_all(world)
    make_pool(world)
    edit_pool(world, **{**world.script.setup["pool"], "stopPolicy": "None"})
    for namespace in ("team", "lab"):
        quota_removed(world, namespace=namespace)
    for resource in JOBS:
        for job in world.server.all(resource):
            edit(world, job["metadata"]["name"], suspend=False)
    fewest, since = len(world.script.actions), world.loop.time()
    while waiting := [job for resource in JOBS for job in world.server.all(resource) if not _is_over(world, job)]:
        if len(waiting) < fewest:
            fewest, since = len(waiting), world.loop.time()
        if world.loop.time() > since + LIMIT:
            told = [f"{j['metadata']['name']} {phase_of(j)} {j.get('status', {}).get('reason')}" for j in waiting]
            world.fail(f"every_job_ends: for {LIMIT:.0f} s none has, and there still is {'; '.join(told)}")
            return
        await asyncio.sleep(5)
    end = world.loop.time() + CALM
    while left := [
        pod["metadata"]["name"] for pod in world.server.all("pods") if owner_of(pod) and world.truth.live(pod)
    ]:
        if world.loop.time() > end:
            world.fail(f"nothing_is_left: pods still live when all jobs have ended: {', '.join(left)}")
            return
        await asyncio.sleep(2)
    await _settle(world, "at the end")


def _nobody_waits_for_ever(world: "World") -> None:
    """A pod for which no node came in time has given its room back."""
    for pod in world.server.all("pods"):
        job = world.truth.job(owner_of(pod))
        if job is None or wanted_node(pod) or not world.truth.live(pod) or job["metadata"].get("deletionTimestamp"):
            continue
        said = world.truth.scale_up(job["spec"]["pool"], world.server.version)
        waited = world.loop.time() - world.seconds(pod["metadata"]["creationTimestamp"])
        if said and waited > said[0]["timeoutSeconds"] + LATE:
            name, most = pod["metadata"]["name"], said[0]["timeoutSeconds"]
            world.fail(f"nobody_waits_for_ever: {name} has waited {waited:.0f} s for a node, of {most}")


def _nobody_begins_for_ever(world: "World") -> None:
    """A pod whose containers did not start in time has been told to stop."""
    limit = world.script.setup["pool"]["startTimeoutSeconds"]
    for pod in world.server.all("pods"):
        job = world.truth.job(owner_of(pod))
        if job is None or not world.server.get("gpupools", ("", job["spec"]["pool"])):
            continue
        since = world.kubelet.begins_since(pod["metadata"]["uid"])
        if since is None or pod["metadata"].get("deletionTimestamp") or job["metadata"].get("deletionTimestamp"):
            continue
        if (waited := world.loop.time() - since) > limit + LATE:
            world.fail(f"nobody_begins_for_ever: {pod['metadata']['name']} has begun for {waited:.0f} s, of {limit}")


def _nobody_is_unbound_for_ever(world: "World") -> None:
    """A pod that was not bound in time to the node that was chosen for it has been told to stop."""
    limit = world.script.setup["pool"]["scheduleTimeoutSeconds"]
    for pod in world.server.all("pods"):
        job = world.truth.job(owner_of(pod))
        if job is None or pod["spec"].get("nodeName") or not wanted_node(pod) or not world.truth.live(pod):
            continue
        if job["metadata"].get("deletionTimestamp") or not world.server.get("gpupools", ("", job["spec"]["pool"])):
            continue
        waited = world.loop.time() - world.seconds(pod["metadata"]["creationTimestamp"])
        if waited > limit + LATE:
            name = pod["metadata"]["name"]
            world.fail(f"nobody_is_unbound_for_ever: {name} has waited {waited:.0f} s to be bound, of {limit}")


def _is_over(world: "World", job: Object) -> bool:
    status = job.get("status") or {}
    never = (*NEVER, *(("WaitingForVolume",) if job["spec"].get("nodes", 1) > 1 else ()))  # of one node, for several
    return phase_of(job) in TERMINAL or (phase_of(job) == "Queued" and status.get("reason") in never)


async def _settle(world: "World", when: str) -> None:
    """Wait for an instant at which a freshly started core has nothing to add."""
    end = world.loop.time() + CALM
    while found := fresh_decisions(world):
        if world.loop.time() > end:
            world.fail(f"statuses_follow_from_the_state: {when}, a fresh core would: {'; '.join(found[:4])}")
            return
        await asyncio.sleep(1)


class _Recorder:
    def __init__(self) -> None:
        self.actions: list[Action] = []

    def submit(self, actions: Sequence[Action]) -> None:
        self.actions += actions


def fresh_decisions(world: "World") -> list[str]:
    """What an operator started this instant would do, queue positions and messages excepted."""
    state = ClusterState(world.settings("fresh").defaults(""))
    for plural, kind in kinds.KIND_OF.items():
        for body in world.server.all(plural):
            ingest.job(state, kind, body)
    for body in world.server.all("gpupools"):
        ingest.pool(state, body)
    for body in world.server.all("gpuquotas"):
        ingest.quota(state, body)
    for row in watched(state):
        for body in world.server.all(row.path.rpartition("/")[2]):
            read = msgspec.json.decode(world.server.bytes_of(body), type=row.read)
            row.cache.put(row.key(read), objects.version(read.metadata), row.value(read, ""))
    recorder = _Recorder()
    loop = Loop(state, recorder, lambda _jobs: [])  # type: ignore[arg-type]
    state.touch_all()
    loop.turn(world.now())
    return [words for action in recorder.actions if (words := _told(action))]


def _told(action: Action) -> str:
    match action:
        case PatchStatus(job=job, status=status):
            old, new = _bare(job.status), _bare(status)
            changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
            parts = ", ".join(f"{k}: {old.get(k)} -> {new.get(k)}" for k in changed)
            return f"write {job.name} ({parts})" if changed else ""
        case CreatePod(name=name):
            return f"create pod {name}"
        case DeletePod(name=name):
            return f"delete pod {name}"
        case DeleteJob(job=job):
            return f"delete {job.name}"
        case PatchLimitsStatus(target=held, status=wanted):
            changed = [f"{k}: {held.status.get(k)} -> {v}" for k, v in wanted.items() if held.status.get(k) != v]
            return f"write {type(held).__name__} ({', '.join(changed)})"
        case _:
            return ""


def _bare(status: JobStatus) -> dict[str, Any]:
    """A status without what is throttled."""
    conditions = tuple(replace(condition, message="") for condition in status.conditions)
    bare: dict[str, Any] = msgspec.to_builtins(replace(status, message="", queue=None, conditions=conditions))
    return bare

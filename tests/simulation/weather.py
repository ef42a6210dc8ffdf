"""What happens to machines, to the network and to the operator itself. Rows of the table of deeds."""

from typing import TYPE_CHECKING

from simulation import faults, feeds
from simulation.deeds import a_job, a_node, deed, do, one_of, seconds, whole
from simulation.faults import Rule
from simulation.truth import is_live_phase

if TYPE_CHECKING:
    from simulation.world import World

_WATCHED = one_of("", "pods", "pods", "nodes", "trainingjobs", "inferencejobs", "gpupools", "priorityclasses")


# --- machines


@deed(3, node=a_node, up=one_of(True, True, False), seconds=seconds(3, 120))
def node_cut_off(world: "World", *, node: str, up: bool, seconds: float) -> None:
    """Its network fails, or the machine; it comes back."""
    world.machines.cut_off(node, up=up)
    world.after(seconds, world.machines.back, node)


@deed(2, node=a_node, seconds=seconds(1, 120))
def node_removed(world: "World", *, node: str, seconds: float) -> None:
    world.machines.remove(node)
    world.after(seconds, world.machines.back, node)


@deed(2, node=a_node, tainted=seconds(5, 60), seconds=seconds(10, 60))
def node_out_of_service(world: "World", *, node: str, tainted: float, seconds: float) -> None:
    world.machines.cut_off(node, up=False)
    world.after(tainted, world.machines.out_of_service, node)
    world.after(tainted + seconds, world.machines.back, node)


@deed(2, node=a_node, seconds=seconds(2, 60), away=seconds(1, 60))
def node_deleted(world: "World", *, node: str, seconds: float, away: float) -> None:
    """Its machine is to go: the Node is in deletion for a while, then gone; another comes in its place."""
    world.machines.delete(node)
    world.after(seconds, world.machines.remove, node)
    world.after(seconds + away, world.machines.back, node)


@deed(2, node=a_node, seconds=seconds(5, 90))
def node_cordoned(world: "World", *, node: str, seconds: float) -> None:
    world.machines.cordon(node, cordoned=True)
    world.after(seconds, lambda: world.machines.cordon(node, cordoned=False))


@deed(2, node=a_node, seconds=seconds(5, 60))
def node_drained(world: "World", *, node: str, seconds: float) -> None:
    """`kubectl drain`: cordoned, its pods evicted."""
    world.machines.cordon(node, cordoned=True)
    for pod in world.server.all("pods"):
        if pod["spec"].get("nodeName") == node and is_live_phase(pod):
            world.api.delete_pod(pod, "drain")
    world.after(seconds, lambda: world.machines.cordon(node, cordoned=False))


@deed(2, node=a_node, slots=one_of(0, 1, 2, 4, 8))
def node_resized(world: "World", *, node: str, slots: int) -> None:
    world.machines.resize(node, slots)


@deed(2, node=a_node, seconds=seconds(2, 90))
def labels_vanish(world: "World", *, node: str, seconds: float) -> None:
    """GPU feature discovery is started again."""
    world.machines.label(node, gpus=False)
    world.after(seconds, world.machines.label, node)


@deed(2, seconds=seconds(10, 90))
def sold_out(world: "World", *, seconds: float) -> None:
    """The provider has no machines for an autoscaler."""
    world.autoscaler.sold_out = world.loop.time() + seconds


# --- requests


@deed(
    14,
    effect=one_of(
        *(faults.REFUSED, faults.DROPPED, faults.LOST, faults.LOST, faults.SLOW, faults.LATE, faults.RACED),
        *(faults.GATEWAY, faults.TOO_MANY, faults.BROKEN, faults.UNAVAILABLE, faults.FORBIDDEN),
    ),
    what=one_of("any", "writes", "writes", "status", "creates", "creates", "deletes", "leases"),
    count=one_of(1, 1, 2, 5),
    skip=one_of(0, 0, 0, 1, 3),
    seconds=seconds(0.05, 12),
)
def requests_fail(world: "World", *, effect: str, what: str, count: int, skip: int, seconds: float) -> None:
    """The next requests of a sort go wrong, within a minute."""
    until = world.loop.time() + 60
    wait = float(round(seconds)) if effect == faults.TOO_MANY else seconds
    world.faults.rules.append(Rule(effect, what, count=count, skip=skip, until=until, seconds=wait))


@deed(4, job=a_job, count=whole(1, 6), seconds=seconds(20, 90))
def contended(world: "World", *, job: str, count: int, seconds: float) -> None:
    """Somebody else writes a job whenever the operator is about to."""
    until = world.loop.time() + seconds
    world.faults.rules.append(Rule(faults.RACED, "status", count=count, until=until, name=job))


@deed(1, seconds=seconds(1, 20))
def forbidden_to_read(world: "World", *, seconds: float) -> None:
    """Single objects may not be read for a while: somebody has a hand on the roles."""
    until = world.loop.time() + seconds
    world.faults.rules.append(Rule(faults.FORBIDDEN, "gets", count=10**6, until=until))


@deed(1, count=whole(1, 3))
def limits_refused(world: "World", *, count: int) -> None:
    """The next statuses of pools and quotas are refused."""
    world.faults.rules.append(Rule(faults.FORBIDDEN, "limits", count=count, until=world.loop.time() + 60))


@deed(
    2, effect=one_of(faults.FORBIDDEN, faults.FORBIDDEN, faults.INVALID), count=one_of(1, 2, 4), seconds=seconds(5, 60)
)
def creates_refused(world: "World", *, effect: str, count: int, seconds: float) -> None:
    """A quota, or an admission policy, refuses pods for a while."""
    until = world.loop.time() + seconds
    world.faults.rules.append(Rule(effect, "creates", count=count, until=until))


@deed(
    3,
    effect=one_of(faults.BROKEN, faults.BROKEN, faults.DROPPED, faults.UNAVAILABLE, faults.TOO_MANY),
    job=one_of("", "", "j0", "j1", "j2"),
    seconds=seconds(5, 90),
)
def webhook_down(world: "World", *, effect: str, job: str, seconds: float) -> None:
    """What admits pods, of all jobs or of one, answers every create with an error, or nothing at all."""
    until = world.loop.time() + seconds
    wait = 1.0 if effect == faults.TOO_MANY else 60.0
    world.faults.rules.append(
        Rule(effect, "creates", count=10**6, until=until, seconds=wait, resource="pods", name=f"{job}-")
    )


@deed(4, pods=whole(1, 4), seconds=seconds(10, 90), lost=whole(0, 3))
def quota(world: "World", *, pods: int, seconds: float, lost: int) -> None:
    """A ResourceQuota for a while; a create that it lets in may fill it and its answer be lost."""
    world.api.pod_quota = pods
    until = world.loop.time() + seconds
    world.faults.rules.append(Rule(faults.LOST, "creates", count=1, skip=lost, until=until, seconds=0.1))
    world.after(seconds, lambda: setattr(world.api, "pod_quota", None))


@deed(
    6,
    job=a_job,
    how=one_of("suspend", "suspend_and_resume", "cancel", "delete", "delete", "crash"),
    effect=one_of(faults.LOST, faults.LOST, faults.SLOW),
    answered=seconds(0.05, 5),
    later=seconds(5, 15),
    delay=seconds(0.01, 2),
)
def unlucky_create(
    world: "World", *, job: str, how: str, effect: str, answered: float, later: float, delay: float
) -> None:
    """The answer to a job's next create is lost, its pod is long unseen, and the user changes his mind meanwhile."""

    def then() -> None:
        watch_slow(world, resource="pods", later=later, seconds=20)
        args = {"suspend": {"suspend": True}, "suspend_and_resume": {"seconds": 1.0}, "crash": {}}.get(how, {})
        args = args if how == "crash" else args | {"job": job}
        world.after(delay, lambda: world.healed or do(world, how, args))  # past the end nobody changes his mind

    until = world.loop.time() + 120
    rule = Rule(effect, "creates", until=until, seconds=answered, resource="pods", name=f"{job}-", then=then)
    world.faults.rules.insert(0, rule)


@deed(2, seconds=seconds(5, 180))
def registry_down(world: "World", *, seconds: float) -> None:
    """Images cannot be pulled, and it is not the job's fault."""
    world.registry_back = world.loop.time() + seconds


@deed(2, seconds=seconds(0.5, 40))
def outage(world: "World", *, seconds: float) -> None:
    """The API server is away for everybody."""
    world.faults.rules.insert(0, Rule(faults.REFUSED, "any", count=10**6, until=world.loop.time() + seconds))
    world.cut("", "", feeds.BROKEN)


@deed(0, job=a_job, attempt=one_of(1))
def must_be_admitted(world: "World", *, job: str, attempt: int) -> None:
    """No deed: what must have come to pass by now, for scripts."""
    found = world.find_job(job)
    if found is None or found[1].get("status", {}).get("attempt", 0) < attempt:
        world.fail(f"in_time: attempt {attempt} of {job} is not admitted yet")


@deed(1, seconds=one_of(-300.0, -40.0, 40.0, 300.0, 0.0))
def clock_stepped(world: "World", *, seconds: float) -> None:
    """The clocks of the operator's machines are set, and wrong by so much from now on."""
    world.clock_off = seconds


# --- watches


@deed(
    6,
    resource=_WATCHED,
    how=one_of(feeds.CLEAN, feeds.BROKEN, feeds.BROKEN, feeds.GONE, feeds.ERROR, feeds.SILENT),
    away=seconds(0, 20),
    refusal=one_of(faults.REFUSED, faults.TOO_MANY, faults.BROKEN),
)
def watch_cut(world: "World", *, resource: str, how: str, away: float, refusal: str) -> None:
    """Watches end, and cannot be opened again for a while."""
    until = world.loop.time() + away
    for what in ("watches", "lists"):
        world.faults.rules.append(Rule(refusal, what, count=10**6, until=until, resource=resource, seconds=1.0))
    if how == feeds.GONE:
        compacted(world, resource=resource)
    world.cut("", resource, how)


@deed(4, job=a_job, delay=seconds(0.1, 4), what=one_of("delete", "delete", "replace", "pool_lab"))
def deleted_unseen(world: "World", *, job: str, delay: float, what: str) -> None:
    """Something is deleted while kopf's watches are cut: its list tells nobody."""
    for resource in ("trainingjobs", "inferencejobs", "gpupools"):
        watch_cut(world, resource=resource, how=feeds.BROKEN, away=5.0, refusal=faults.REFUSED)
    world.after(delay, do, world, what, {"there": False} if what == "pool_lab" else {"job": job})


@deed(1, resource=_WATCHED)
def compacted(world: "World", *, resource: str) -> None:
    """Old versions can no longer be watched from, nor pages be fetched."""
    for name in [resource] if resource else list(world.server.objects):
        world.server.compact(name)


@deed(5, resource=_WATCHED, later=seconds(0.5, 15), seconds=seconds(5, 60))
def watch_slow(world: "World", *, resource: str, later: float, seconds: float) -> None:
    """A cache lags."""
    for name in [resource] if resource else list(world.server.objects):
        world.slow[name] = (world.loop.time() + seconds, later)


# --- the operator


@deed(
    8,
    when=one_of(faults.CRASH_BEFORE, faults.CRASH_AFTER, faults.CRASH_AFTER),
    what=one_of("writes", "writes", "status", "creates", "deletes"),
    skip=whole(0, 12),
)
def crash_at_write(world: "World", *, when: str, what: str, skip: int) -> None:
    """The process dies at one of its next writes."""
    world.faults.rules.insert(0, Rule(when, what, skip=skip, until=world.loop.time() + 120))


@deed(1)
def crash(world: "World") -> None:
    for replica in world.replicas:
        world.crash(replica.name, "now")


@deed(1, replica=whole(0, 1))
def restart(world: "World", *, replica: int) -> None:
    """A clean stop, as at an update."""
    world.replicas[replica % len(world.replicas)].stop()


@deed(3, replica=whole(0, 1), seconds=seconds(2, 50))
def isolated(world: "World", *, replica: int, seconds: float) -> None:
    """One replica cannot reach the API server; past its lease another leads."""
    one = world.replicas[replica % len(world.replicas)]
    one.isolate(isolated=True)
    world.after(seconds, lambda: one.isolate(isolated=False))

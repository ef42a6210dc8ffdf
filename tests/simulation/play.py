"""Plays one history from its script to its end, and says what came of it."""

import asyncio
import hashlib
from dataclasses import dataclass, field

from simulation import admins, deeds, ending, people, resource_quotas, volumes, weather  # noqa: F401  they fill the table of deeds
from simulation.process import edges
from simulation.script import HORIZON, Script, draw, pool
from simulation.virtual import VirtualLoop, run
from simulation.world import World


@dataclass
class Result:
    """What came of a history."""

    seed: int
    violation: str  # empty: all held
    events: int  # writes that the server committed
    requests: int  # of the operator, leases and events apart
    faults: int  # requests that met a rule
    seconds: float  # virtual
    digest: str  # of every write: equal for equal histories
    lines: list[str] = field(default_factory=list)


def play(script: Script, *, verbose: bool = False) -> Result:
    """Play it."""
    loop = VirtualLoop()
    return run(loop, _play(script, loop, verbose=verbose))


def play_seed(seed: int, *, verbose: bool = False) -> Result:
    """Play the history of a seed."""
    return play(draw(seed), verbose=verbose)


async def _play(script: Script, loop: VirtualLoop, *, verbose: bool) -> Result:
    world = World(script, loop, verbose=verbose)
    loop.set_exception_handler(
        lambda _loop, context: world.fail(f"the loop: {context['message']}", context.get("exception"))
    )
    with edges(world, script.setup["page"]):
        story = loop.create_task(_story(world, script), name="story")
        await asyncio.wait([story, world.failed], return_when=asyncio.FIRST_COMPLETED)
        if story.done() and (error := story.exception()) is not None:
            world.fail(f"the model broke: {error!r}", error)
        world.over = True
        story.cancel()
        for replica in world.replicas:
            replica.kill()
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    return Result(
        seed=script.seed,
        violation=world.violation,
        events=world.events,
        requests=world.requests,
        faults=world.faults.met,
        seconds=loop.time(),
        digest=_digest(world),
        lines=world.lines,
    )


async def _story(world: World, script: Script) -> None:
    world.machines.register()
    for name in ("team", "lab"):
        labels = {"kubernetes.io/metadata.name": name}
        world.server.create("namespaces", {"metadata": {"name": name, "labels": labels}}, "user")
    volumes.register(world)
    world.server.create("gpupools", pool(script.setup), "user")
    if value := script.setup["urgent"]:
        admins.priority_class(world, name="urgent", value=value)
    for namespace, drawn in script.setup.get("quotas", {}).items():
        admins.set_quota(world, namespace, drawn)
    for replica in world.replicas:
        replica.start()
    for action in script.actions:
        if action.at > world.loop.time():
            await asyncio.sleep(action.at - world.loop.time())
        deeds.do(world, action.do, action.args)
    await asyncio.sleep(max(0.0, min(HORIZON, world.script.setup.get("horizon", HORIZON)) - world.loop.time()))
    await ending.come_to_rest(world)
    await ending.heal(world)


def _digest(world: World) -> str:
    found = hashlib.blake2b(digest_size=8)
    for resource in sorted(world.server.log):
        for change in world.server.log[resource]:
            found.update(f"{change.version} {change.at:.6f} {change.type} {change.key}".encode())
            found.update(world.server.bytes_of(change.new))
    return found.hexdigest()

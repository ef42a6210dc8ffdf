"""In the place of the shell's `Connection`: the same three ways in, answered by the model, with all that may go wrong."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from simulation import faults
from simulation.api import Target, parse, refusal
from simulation.feeds import Content, Feed, Response

from rfuav_kube import clock
from rfuav_kube.connection import Answer, NotSent, Unknown
from rfuav_kube.outage import Outage
from rfuav_operator.settings import Writes
from rfuav_operator.shell.leader import SAFE

if TYPE_CHECKING:
    from simulation.world import World

LINGERS = 0.3  # seconds for which the server goes on with what a killed process has sent: less than a restart takes
MARGIN = 0.99 * (1 - SAFE)  # share of a lease in which its last holder decides nothing, and nobody else yet
WRITES = Writes().timeout_seconds
_WORDS = {"403": ("Forbidden", "exceeded quota: team"), "422": ("Invalid", "spec.containers[0]: invalid")}


class SimConnection:
    """One process's way to the API server.

    Attributes:
        known: up to which version of each resource the process has been told everything.
        isolated: no request of it arrives, and no answer.
        dead: the process has crashed; what it still does is nobody's.
    """

    host = "https://simulated"

    def __init__(self, world: "World", process: str) -> None:
        self.world = world
        self.process = process
        self.known: dict[str, int] = defaultdict(int)
        self._blind: dict[str, int] = {}  # resources of which a list hid deletions: what was known before it
        self.isolated = False
        self.dead = False
        self._outage = Outage(self._not_ready)
        self.killed_at = float("inf")
        self.term = 0  # how often the process has become leader

    def end(self) -> None:
        """The process is over."""
        self.dead = True
        if self._outage._watching is not None:
            self._outage._watching.cancel()

    async def reachable(self) -> bool:
        return await self._outage.over()

    async def _not_ready(self) -> str:
        try:
            rule = self._meet("GET", Target("readyz", "", "", ""))
        except NotSent as error:
            return str(error)
        await asyncio.sleep(2 * self.world.latency())
        return rule.effect if rule is not None and rule.effect in faults.AWAY else ""

    def knows(self, resource: str, version: int) -> None:
        """Everything up to this version was handed over."""
        self.known[resource] = max(self.known[resource], version)

    def sees_no_deletions(self, resource: str, version: int) -> None:
        """A list at this version was handed over that does not tell what is gone."""
        log = self.world.server.log[resource]
        missed = log[self.world.server.position(resource, self.known[resource]) :]
        if any(change.type == "DELETED" and change.version <= version for change in missed):
            self._blind.setdefault(resource, self.known[resource])

    def knowledge(self) -> dict[str, int]:
        """Up to which version everything of each resource is known, deletions too."""
        return defaultdict(int, self.known | self._blind)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 10,  # noqa: ASYNC109  as the real one
    ) -> Answer:
        world, target = self.world, parse(path)
        if method == "POST":
            target = target._replace(name=body["metadata"]["name"])
        rule = self._meet(method, target)
        effect = rule.effect if rule else ""
        sent, there = world.loop.time(), world.latency()
        if effect in (faults.REFUSED, faults.DROPPED):
            await asyncio.sleep(there if effect == faults.REFUSED else min(rule.seconds, timeout))
            raise (NotSent if effect == faults.REFUSED else Unknown)(f"{method} {path}: {effect}")
        if effect == faults.CRASH_BEFORE:
            world.crash(self.process, f"before {method} {target.resource} {target.name}")
            await asyncio.Event().wait()
        if effect in (faults.TOO_MANY, faults.BROKEN, faults.UNAVAILABLE, faults.FORBIDDEN, faults.INVALID):
            await asyncio.sleep(there)
            reason, message = _WORDS.get(effect, ("Refused", effect))
            return refusal(int(effect), reason, message, rule.seconds if effect == faults.TOO_MANY else None)
        patience = min(rule.seconds, timeout) if effect == faults.LOST else timeout
        if effect in (faults.SLOW, faults.LATE):
            there = min(there + rule.seconds, timeout - 0.001)  # what its sender has given up no longer arrives
        if effect == faults.LATE and timeout < WRITES:  # but the lease has others wait
            there = min(timeout + min(rule.seconds, MARGIN * world.script.setup["leaseSeconds"]), WRITES - 0.001)
        else:
            patience = max(patience, there)
        data = orjson.loads(orjson.dumps(body)) if body is not None else None
        answered: asyncio.Future[Answer] = world.loop.create_future()
        # Sent is sent: it arrives even when the process ends meanwhile, or dies a moment before.
        told = partial(self._answer, answered, sent)
        world.loop.call_later(there, partial(self._arrive, method, target, data, effect, told, term=self.term))
        timer = world.loop.call_later(patience, _expire, answered, f"{method} {path}: no answer")
        try:
            return await answered
        finally:
            timer.cancel()

    def _meet(self, method: str, target: Target) -> faults.Rule | None:
        if self.dead:
            raise NotSent("the process is dead")
        self.world.count_request(self.process, method, target)
        if self.isolated:
            return faults.Rule(faults.REFUSED)
        return self.world.faults.pick(self.process, method, target, self.world.loop.time())

    def _arrive(
        self, method: str, target: Target, body: Any, effect: str, told: Callable[..., None], *, term: int
    ) -> None:
        world = self.world
        if world.loop.time() > self.killed_at + LINGERS:
            return
        if term != self.term and method != "GET" and target.resource not in ("leases", "events"):
            words = f"{method} {target.resource} {target.name}, sent in term {term}, arrives in term {self.term}"
            world.fail(f"requests_end_with_their_term: {self.process}: {words}")
        if effect == faults.RACED and world.server.get(target.resource, target.key) is not None:
            stamp = {"annotations": {"someone": str(world.server.version)}}
            world.server.meta(target.resource, target.key, stamp, "someone")
        world.truth.request(self.process, method, target, body)
        answer = world.api.handle(method, target, body, self.process)
        if effect == faults.CRASH_AFTER:
            world.crash(self.process, f"after {method} {target.resource} {target.name}")
        if effect == faults.LOST or self.dead:
            return
        if effect == faults.GATEWAY:
            answer = refusal(504, "Timeout", "the server did not answer in time")
        world.loop.call_later(world.latency(), told, answer, world.date())

    def _answer(self, answered: "asyncio.Future[Answer]", sent: float, answer: Answer, date: float) -> None:
        if not answered.done() and not self.isolated:
            clock.heard(date, sent)
            answered.set_result(answer)

    async def get_bytes(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: str = ""
    ) -> tuple[int, bytes, float | None]:
        world, target = self.world, parse(path)
        rule = self._meet("LIST", target)
        sent = world.loop.time()
        await asyncio.sleep(world.latency())
        if rule is not None and rule.effect == faults.REFUSED:
            raise NotSent(f"LIST {path}: refused")
        if rule is not None and rule.effect.isdigit():
            return int(rule.effect), b"{}", rule.seconds if rule.effect == faults.TOO_MANY else None
        bare = bool(accept)
        status, body, version = world.api.page(target.resource, params or {}, bare=bare)
        date = world.date()
        await asyncio.sleep(world.latency())
        clock.heard(date, sent)
        if status == 200 and b'"continue":""' in body[:100]:  # the last page
            self._blind.pop(target.resource, None)  # such a list drops what it does not name
            if not bare:
                self.knows(target.resource, version)
        return status, body, None

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str] | None = None, *, idle: float
    ) -> AsyncIterator[Response]:
        world, target, params = self.world, parse(path), params or {}
        rule = self._meet("WATCH", target)
        await asyncio.sleep(world.latency())
        if rule is not None and rule.effect == faults.REFUSED:
            raise aiohttp.ClientConnectionError(f"WATCH {path}: refused")
        if rule is not None and rule.effect.isdigit():
            yield Response(int(rule.effect), headers={"Retry-After": str(int(rule.seconds))})
            return
        version = int(params["resourceVersion"])
        if version < world.server.floor[target.resource]:
            yield Response(410)
            return
        feed = Feed(world, self, target.resource, version)
        world.feeds.append(feed)
        try:
            yield Response(200, Content(feed, float(params["timeoutSeconds"])))
        finally:
            world.feeds.remove(feed)

    # --- kopf's list and watch, as events

    async def list_objects(self, resource: str) -> tuple[list[dict[str, Any]], int]:
        """The objects of a resource, and their version."""
        rule = self._meet("LIST", Target(resource, "", "", ""))
        await asyncio.sleep(self.world.latency())
        if rule is not None:
            raise NotSent(f"LIST {resource}: {rule.effect}")
        found, version = self.world.server.all(resource), self.world.server.version
        await asyncio.sleep(self.world.latency())
        return found, version


def _expire(answered: "asyncio.Future[Answer]", words: str) -> None:
    if not answered.done():
        answered.set_exception(Unknown(words))

"""One leader at a time, by two Leases. `left()` says for how many seconds nobody else can be it.

The Lease in the operator's own namespace is held by one replica of its release, another, in a namespace that all
releases share, by one release of the cluster: who leads holds both. The second is not given back; it runs out when its
release is gone.

The deadline is on the monotonic clock and counts from before the request that renewed the lease; it ends well before
the others may take over. They count from when they saw the lease change, so clocks need not agree. What was sent before
the deadline may still be carried out until then: this process waits as long before it leads again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import structlog

from rfuav_crds.bounds import bounded, clean
from rfuav_crds.contract import GROUP
from rfuav_kube import clock, paths
from rfuav_kube.connection import MERGE_PATCH, Answer, Connection, ConnectionProblem
from rfuav_operator.settings import CLUSTER_LEASE, LONGEST_LEASE
from rfuav_operator.settings import Leader as Limits

log = structlog.get_logger()

SAFE = 0.8  # share of the lease that its holder uses
RENEW = 0.25  # share of the lease between two renewals
RETRY = 1 / 16  # the same after one that failed
SHARED_LASTS = 3  # leases: time for the same release to come back before another takes over
ASKING = 3.0  # seconds of a request of who does not lead
LABEL = f"{GROUP}/leader"
STANDS_BY = f"{GROUP}/stands-by"  # annotation: the release that waits for another's Lease, and when it said so
SAID_EVERY = timedelta(seconds=30)
LONGEST_NAME = 320  # characters of who holds a lease or waits for it, as they are told: a namespace and a name
_NOT_NOW = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
MOST_TRANSITIONS = 2**31 - 1  # the API server refuses more


class LeaseLost(RuntimeError):  # noqa: N818  the term of leader election
    """The lease was taken, or could not be renewed in time: this process may decide nothing any more."""


class Leader:
    """Leader election.

    Args:
        pod: name of the own pod, which is labelled while it leads; empty outside a cluster.
        on_renewed: called after each try to renew the lease.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        limits: Limits,
        *,
        pod: str = "",
        on_renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_renewed = on_renewed
        self._connection = connection
        self._namespace = namespace
        self._limits = limits
        self._pod = pod
        self._own = _Lease(connection, namespace, limits.lease, me=limits.identity, seconds=limits.lease_seconds)
        self._release: _Lease | None = None
        if limits.cluster_namespace:
            self._release = _Lease(
                connection,
                limits.cluster_namespace,
                CLUSTER_LEASE,
                me=f"{namespace}/{limits.lease}",
                seconds=limits.lease_seconds * SHARED_LASTS,
                shared=True,
            )
        self._deadline = float("-inf")
        self._runs_out = float("-inf")  # when others may take over, and all that was sent before has ended
        self._blocked = ""

    @property
    def blocked(self) -> str:
        """Why no replica of this release may lead, as that another release does; empty: one may."""
        return self._blocked

    @property
    def rival(self) -> str:
        """While this process leads: another release that stands by, as its namespace and Lease; empty: none."""
        return self._release.stands_by() if self._release is not None and self.leading else ""

    def left(self) -> float:
        """Seconds for which this process is surely the only leader; negative: it is not."""
        return self._deadline - clock.monotonic()

    @property
    def leading(self) -> bool:
        """Whether this process leads now."""
        return self.left() > 0

    async def acquire(self) -> None:
        """Wait until the lease is held, and until no request of an earlier term of this process is under way."""
        # Reports go to whoever has the label: one that is left over is taken away as soon as the API server answers.
        async with self._labelled(leading=False):
            await asyncio.sleep(max(self._runs_out - clock.monotonic(), 0))
            while True:
                pause = self._limits.lease_seconds * RENEW / 2
                try:
                    if await self._try():
                        break
                except ConnectionProblem as error:
                    if await self._connection.reachable():
                        pause = 0.0
                    else:
                        log.warning("lease not reached", error=str(error))
                await asyncio.sleep(pause)
        log.info("leading", identity=self._limits.identity)

    async def hold(self) -> None:
        """Renew the lease until cancelled.

        Raises:
            LeaseLost: it was taken, or could not be renewed in time.
        """
        async with self._labelled(leading=True):
            await self._renew()

    async def _renew(self) -> None:
        pause = RENEW
        while True:
            await asyncio.sleep(min(self._limits.lease_seconds * pause, max(self.left(), 0)))
            if not self.leading:
                raise self._lost("it could not be renewed in time")
            before, held = self._deadline, True
            try:
                held = await self._try()
            except ConnectionProblem as error:
                log.debug("lease not renewed", error=str(error), left=round(self.left(), 1))
            pause = RENEW if self._deadline > before else RETRY
            if not held:
                raise self._lost("another holds it")
            self._on_renewed()

    def _lost(self, why: str) -> LeaseLost:
        self._deadline = float("-inf")
        return LeaseLost(f"the lease is lost: {why}")

    async def release(self) -> None:
        """Give the lease back, so that another takes over at once. Nothing may be under way."""
        if not self.leading:
            return
        self._deadline = self._runs_out = float("-inf")
        try:
            await self._label(leading=False)
            await self._own.give_back()
        except ConnectionProblem as error:
            log.warning("lease not released", error=str(error))

    async def _try(self) -> bool:
        """Take or renew what a leader holds; False when another has it."""
        began = clock.monotonic()
        timeout = max(min(self._limits.lease_seconds * RENEW, self.left()), 1.0) if self.leading else ASKING
        taken = await self._own.take(timeout=timeout)
        if self._release is not None:
            if taken is Taken.BY_ANOTHER:
                await self._release.look(timeout=timeout)
            else:
                taken = min(taken, await self._release.take(timeout=timeout))
            self._tell(self._release)
        if taken is Taken.YES:
            self._deadline = began + self._limits.lease_seconds * SAFE
            self._runs_out = began + self._limits.lease_seconds
        # Refused, or written by somebody in between: who holds it, the next try tells.
        return self.leading if taken is Taken.UNKNOWN else taken is Taken.YES

    def _tell(self, release: "_Lease") -> None:
        words = release.refused
        if other := release.held_by_another():
            words = f"another release of the operator, {other}, serves this cluster; this one, {release.me}, stands by"
        if words != self._blocked:
            log.warning(words or "no other release of the operator serves this cluster any more")
        self._blocked = words

    @contextlib.asynccontextmanager
    async def _labelled(self, *, leading: bool) -> AsyncIterator[None]:
        """Meanwhile the own pod's label says whether it leads. However long that takes, the lease does not wait."""
        labelling = asyncio.create_task(self._keep_label(leading=leading), name="label")
        try:
            yield
        finally:
            labelling.cancel()
            await asyncio.wait([labelling])

    async def _keep_label(self, *, leading: bool) -> None:
        while self._pod:  # looked at again and again: a try may fail, and people take labels away
            await self._label(leading=leading)
            await asyncio.sleep(self._limits.lease_seconds * RENEW)

    async def _label(self, *, leading: bool) -> None:
        """Label the own pod, which the Service of the progress server then selects."""
        if not self._pod:
            return
        path = f"{paths.pods(self._namespace)}/{self._pod}"
        timeout = min(3.0, self._limits.lease_seconds * RENEW)
        wanted = "true" if leading else None
        try:
            answer = await self._connection.request("GET", path, timeout=timeout)
            if answer.ok and _inner(_inner(answer.body, "metadata"), "labels").get(LABEL) == wanted:
                return
            body = {"metadata": {"labels": {LABEL: wanted}}}
            answer = await self._connection.request("PATCH", path, body, content_type=MERGE_PATCH, timeout=timeout)
        except ConnectionProblem as error:
            log.warning("own pod not labelled: progress reports go astray", error=str(error))
            return
        if not answer.ok:
            log.error("own pod not labelled: progress reports go astray", status=answer.status, message=answer.message)


class Taken(IntEnum):
    """What came of a try; the least of several counts."""

    BY_ANOTHER = 0
    UNKNOWN = 1
    YES = 2


class _Lease:
    """One Lease.

    Args:
        me: the name of its holder.
        seconds: after which one that was not renewed is free.
        shared: several processes hold it as the same; which of them may, something else says.
    """

    def __init__(
        self, connection: Connection, namespace: str, name: str, *, me: str, seconds: int, shared: bool = False
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self.me = me
        self.refused = ""  # why the API server did not let it be taken
        self._shared = shared
        self._seconds = seconds
        self._path = f"{paths.leases(namespace)}/{name}"
        self._held = False  # by this process, at some time
        self._seen: tuple[Any, float] = ({}, 0.0)  # its spec, and since when
        self._body: dict[str, Any] = {}

    async def take(self, *, timeout: float) -> Taken:  # noqa: ASYNC109  bounded by the lease
        """Take or renew it."""
        answer = await self.look(timeout=timeout)
        if answer.status == HTTPStatus.NOT_FOUND:
            answer = await self._connection.request("POST", paths.leases(self._namespace), self._new(), timeout=timeout)
        elif answer.status == HTTPStatus.OK:
            if not self._free():
                await self._say_that_it_waits(timeout)
                return Taken.BY_ANOTHER
            answer = await self._connection.request("PUT", self._path, self._mine(), timeout=timeout)
        if answer.ok:
            self._held, self._body, self.refused = True, answer.body, ""
            return Taken.YES
        if answer.status in _NOT_NOW or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.debug("lease not renewed", lease=self._path, status=answer.status, message=answer.message)
        else:
            words = f"the Lease {self._namespace}/{self._name} is refused: {answer.status} {answer.message}"
            if words != self.refused:
                log.warning(words)
            self.refused = words
        return Taken.UNKNOWN

    async def look(self, *, timeout: float) -> Answer:  # noqa: ASYNC109  bounded by the lease
        """Read it, and note since when it is as it is."""
        answer = await self._connection.request("GET", self._path, timeout=timeout)
        if answer.ok:
            self._body = answer.body
            if self._spec != self._seen[0]:
                self._seen = (self._spec, clock.monotonic())
        return answer

    async def give_back(self) -> None:
        """Let another take it at once, if it is held."""
        answer = await self._connection.request("GET", self._path, timeout=2)
        if answer.ok and _holder(answer.body) == self.me:
            body = answer.body
            body["spec"].update(holderIdentity="", renewTime=_micro())
            await self._connection.request("PUT", self._path, body, timeout=2)

    def held_by_another(self) -> str:
        """Who holds it as it was last seen, unless that is oneself or nobody."""
        return "" if not self._body or self._free() else _shown(_holder(self._body))

    def stands_by(self) -> str:
        """Who said of late that it waits for this lease."""
        who, age = self._said()
        return _shown(who) if who != self.me and age < 3 * SAID_EVERY else ""

    async def _say_that_it_waits(self, timeout: float) -> None:  # noqa: ASYNC109  bounded by the lease
        """Have the holder know, for the pools' status. Who comes third says nothing."""
        who, age = self._said()
        if not self._shared or age < (SAID_EVERY if who == self.me else 3 * SAID_EVERY):
            return
        meta = _inner(self._body, "metadata")
        notes = {**_inner(meta, "annotations"), STANDS_BY: f"{self.me} {_micro()}"}
        body = {**self._body, "metadata": {**meta, "annotations": notes}}
        await self._connection.request("PUT", self._path, body, timeout=timeout)

    def _said(self) -> tuple[str, timedelta]:
        """Who said that it waits, and how long ago."""
        note = str(_inner(_inner(self._body, "metadata"), "annotations").get(STANDS_BY, ""))
        who, _, at = note.partition(" ")
        said = _instant(at)
        age = timedelta.max if said is None else clock.now() - said
        # Nobody has said it in the future: it would hold until then.
        return (who, age) if -SAID_EVERY < age < timedelta.max else ("", timedelta.max)

    @property
    def _spec(self) -> Mapping[str, Any]:
        return _inner(self._body, "spec")

    def _free(self) -> bool:
        holder = _holder(self._body)
        mine = holder == self.me
        if holder == "" or (mine and (self._held or self._shared)):
            return True
        said = _whole(self._spec.get("leaseDurationSeconds"), 0, SHARED_LASTS * LONGEST_LEASE)
        seconds = max(said, self._seconds)
        # What a former process of this pod has sent may still be carried out until its lease ends, by the same clock.
        renewed = _instant(self._spec.get("renewTime"))
        if mine and renewed is not None and clock.now() > renewed + timedelta(seconds=seconds):
            return True
        return clock.monotonic() - self._seen[1] > seconds

    def _new(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._fresh(0),
        }

    def _mine(self) -> dict[str, Any]:
        spec = self._spec
        if spec.get("holderIdentity") == self.me and self._held:
            return {**self._body, "spec": {**spec, "renewTime": _micro()}}
        transitions = _whole(spec.get("leaseTransitions"), 0, MOST_TRANSITIONS - 1)
        return {**self._body, "spec": {**spec, **self._fresh(transitions + 1)}}

    def _fresh(self, transitions: int) -> dict[str, Any]:
        now = _micro()
        return {
            "holderIdentity": self.me,
            "leaseDurationSeconds": self._seconds,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }


# What others have written is believed within bounds.


def _inner(body: Any, name: str) -> Mapping[str, Any]:
    found = body.get(name) if isinstance(body, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _holder(body: Mapping[str, Any]) -> str:
    return str(_inner(body, "spec").get("holderIdentity") or "")


def _shown(name: str) -> str:
    return clean(name[:LONGEST_NAME])


def _whole(written: Any, least: int, most: int) -> int:
    """A whole number between the two, or 0 for what is none."""
    return min(max(written, least), most) if type(written) is int else 0


def _instant(written: Any) -> datetime | None:
    try:
        found: datetime = msgspec.convert(written, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        return None
    return bounded(found)


def _micro() -> str:
    return clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

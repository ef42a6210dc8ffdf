"""One leader at a time, by a Lease. `left()` says for how many seconds nobody else can be it.

The deadline is on the monotonic clock and counts from before the request that renewed the lease; it ends well before
the others may take over. They count from when they saw the lease change, so clocks need not agree.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from rfuav_operator.settings import Leader as Limits
from rfuav_operator.shell import clock, paths
from rfuav_operator.shell.connection import MERGE_PATCH, Answer, Connection, ConnectionProblem

log = structlog.get_logger()

SAFE = 0.8  # share of the lease that its holder uses
RENEW = 0.25  # share of the lease between two renewals
RETRY = 1 / 16  # the same after one that failed
ASKING = 3.0  # seconds of a request of who does not lead
LABEL = "rfuav.io/leader"
OK, NOT_FOUND, CONFLICT = 200, 404, 409


class LeaseLost(RuntimeError):  # noqa: N818  the term of leader election
    """The lease was taken, or could not be renewed in time: this process may decide nothing any more."""


class Leader:
    """Leader election.

    Args:
        pod: name of the own pod, which is labelled while it leads; empty outside a cluster.
    """

    def __init__(self, connection: Connection, namespace: str, limits: Limits, *, pod: str = "") -> None:
        self._connection = connection
        self._namespace = namespace
        self._limits = limits
        self._pod = pod
        self._path = f"{paths.leases(namespace)}/{limits.lease}"
        self._deadline = float("-inf")
        self._held = False  # by this process, at some time
        self._requests_end = float("-inf")  # until then what was sent in an earlier term may still be carried out
        self._seen: tuple[str, float] = ("", 0.0)  # resourceVersion of somebody else's lease, and since when

    def left(self) -> float:
        """Seconds for which this process is surely the only leader; negative: it is not."""
        return self._deadline - clock.monotonic()

    @property
    def leading(self) -> bool:
        """Whether this process leads now."""
        return self.left() > 0

    async def acquire(self) -> None:
        """Wait until the lease is held, and until no request of an earlier term of this process is under way."""
        await self._label(leading=False)  # left over when the container was restarted, or when the lease was lost
        await asyncio.sleep(max(self._requests_end - clock.monotonic(), 0))
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
        pause = RENEW
        while True:
            if pause == RENEW:  # looked at with every renewal: a try may fail, and people take labels away
                await self._label(leading=True)
            await asyncio.sleep(min(self._limits.lease_seconds * pause, max(self.left(), 0)))
            if not self.leading:
                raise self._lost("it could not be renewed in time")
            pause = RENEW
            try:
                held = await self._try()
            except ConnectionProblem as error:
                log.debug("lease not renewed", error=str(error), left=round(self.left(), 1))
                held, pause = True, RETRY
            if not held:
                raise self._lost("another holds it")

    def _lost(self, why: str) -> LeaseLost:
        self._requests_end, self._deadline = max(self._requests_end, self._deadline), float("-inf")
        return LeaseLost(f"the lease is lost: {why}")

    async def release(self) -> None:
        """Give the lease back, so that another takes over at once."""
        if not self.leading:
            return
        self._deadline = float("-inf")
        try:
            await self._label(leading=False)
            answer = await self._connection.request("GET", self._path, timeout=2)
            if answer.ok and _holder(answer) == self._limits.identity:
                body = answer.body
                body["spec"].update(holderIdentity="", renewTime=_micro())
                await self._connection.request("PUT", self._path, body, timeout=2)
        except ConnectionProblem as error:
            log.warning("lease not released", error=str(error))

    async def _try(self) -> bool:
        """Take or renew the lease; False when another holds it."""
        began = clock.monotonic()
        timeout = max(min(self._limits.lease_seconds * RENEW, self.left()), 1.0) if self.leading else ASKING
        answer = await self._connection.request("GET", self._path, timeout=timeout)
        if answer.status == NOT_FOUND:
            answer = await self._connection.request("POST", paths.leases(self._namespace), self._new(), timeout=timeout)
        elif answer.status == OK:
            if not self._free(answer):
                return False
            answer = await self._connection.request("PUT", self._path, self._mine(answer.body), timeout=timeout)
        if answer.ok:
            self._held = True
            self._deadline = began + self._limits.lease_seconds * SAFE
            return True
        if answer.status != CONFLICT:
            log.warning("lease refused", status=answer.status, message=answer.message)
        # Somebody wrote the lease in between; who holds it, the next try tells.
        return self.leading

    def _free(self, answer: Answer) -> bool:
        holder = _holder(answer)
        mine = holder == self._limits.identity
        if holder == "" or (mine and self._held):
            return True
        version = answer.body["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, clock.monotonic())
        seconds = answer.body["spec"].get("leaseDurationSeconds") or self._limits.lease_seconds
        # What a former process of this pod has sent may still be carried out until its lease ends, by the same clock.
        if mine and clock.now() > _renewed(answer) + timedelta(seconds=seconds):
            return True
        return clock.monotonic() - self._seen[1] > seconds

    def _new(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._limits.lease, "namespace": self._namespace},
            "spec": self._spec(0),
        }

    def _mine(self, body: dict[str, Any]) -> dict[str, Any]:
        spec = body.get("spec") or {}
        if spec.get("holderIdentity") == self._limits.identity and self.leading:
            return {**body, "spec": {**spec, "renewTime": _micro()}}
        return {**body, "spec": {**spec, **self._spec(spec.get("leaseTransitions", 0) + 1)}}

    def _spec(self, transitions: int) -> dict[str, Any]:
        now = _micro()
        return {
            "holderIdentity": self._limits.identity,
            "leaseDurationSeconds": self._limits.lease_seconds,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _label(self, *, leading: bool) -> None:
        """The Service of the progress server selects the pod that carries the label."""
        if not self._pod:
            return
        path = f"{paths.pods(self._namespace)}/{self._pod}"
        timeout = min(3.0, self._limits.lease_seconds * RENEW)
        wanted = "true" if leading else None
        try:
            answer = await self._connection.request("GET", path, timeout=timeout)
            if answer.ok and (answer.body["metadata"].get("labels") or {}).get(LABEL) == wanted:
                return
            body = {"metadata": {"labels": {LABEL: wanted}}}
            answer = await self._connection.request("PATCH", path, body, content_type=MERGE_PATCH, timeout=timeout)
        except ConnectionProblem as error:
            log.warning("own pod not labelled: progress reports go nowhere", error=str(error))
            return
        if not answer.ok:
            log.error("own pod not labelled: progress reports go nowhere", status=answer.status, message=answer.message)


def _holder(answer: Answer) -> str:
    return str((answer.body.get("spec") or {}).get("holderIdentity") or "")


def _renewed(answer: Answer) -> datetime:
    return msgspec.convert((answer.body.get("spec") or {})["renewTime"], datetime)


def _micro() -> str:
    return clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

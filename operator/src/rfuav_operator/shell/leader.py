"""One leader at a time, by two Leases. `left()` says for how many seconds no other process can lead.

One replica of a release holds the Lease in the operator's own namespace; one release of the cluster holds a second
Lease, in a namespace that all releases share. The leader holds both. The second is not given back; it expires when its
release is gone.

The deadline is on the monotonic clock and counts from before the request that renewed the lease; it ends well before
others may take over. They count from when they saw the lease change, so clocks need not agree. Requests sent before
the deadline may still be carried out until then: this process waits as long before it leads again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from rfuav_crds.contract import GROUP
from rfuav_kube import clock, paths
from rfuav_kube.connection import MERGE_PATCH, Connection, ConnectionProblem
from rfuav_kube.lease import Lease, Taken
from rfuav_kube.objects import section
from rfuav_operator.settings import CLUSTER_LEASE, LONGEST_LEASE
from rfuav_operator.settings import Leader as Limits

log = structlog.get_logger()

SAFE = 0.8  # share of the lease that its holder uses
RENEW = 0.25  # share of the lease between two renewals
RETRY = 1 / 16  # the same after one that failed
SHARED_LASTS = 3  # leases: time for the same release to come back before another takes over
ASKING = 3.0  # seconds for a request of a process that does not lead
LABEL = f"{GROUP}/leader"
STANDS_BY = f"{GROUP}/stands-by"  # annotation: the release that waits for another's Lease, and when it said so


class LeaseLost(RuntimeError):  # noqa: N818  the term of leader election
    """The lease was taken, or was not renewed in time: this process must stop making decisions."""


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
        self._own = Lease(
            connection,
            namespace,
            limits.lease,
            me=limits.identity,
            seconds=limits.lease_seconds,
            most_seconds=SHARED_LASTS * LONGEST_LEASE,
            note=STANDS_BY,
        )
        self._release: Lease | None = None
        if limits.cluster_namespace:
            self._release = Lease(
                connection,
                limits.cluster_namespace,
                CLUSTER_LEASE,
                me=f"{namespace}/{limits.lease}",
                seconds=limits.lease_seconds * SHARED_LASTS,
                most_seconds=SHARED_LASTS * LONGEST_LEASE,
                note=STANDS_BY,
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
        """While this process leads: another release on standby, as its namespace and Lease; empty: none."""
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
                        log.warning("lease could not be read", error=str(error))
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
                raise self._lost("it was not renewed in time")
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
        # Refused, or written by another process in between: the next try shows the holder.
        return self.leading if taken is Taken.UNKNOWN else taken is Taken.YES

    def _tell(self, release: Lease) -> None:
        words = release.refused
        if other := release.held_by_another():
            words = (
                f"another release of the operator, {other}, serves this cluster; this one, {release.me}, is on standby"
            )
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
            if answer.ok and section(section(answer.body, "metadata"), "labels").get(LABEL) == wanted:
                return
            body = {"metadata": {"labels": {LABEL: wanted}}}
            answer = await self._connection.request("PATCH", path, body, content_type=MERGE_PATCH, timeout=timeout)
        except ConnectionProblem as error:
            log.warning("own pod not labelled: progress reports do not reach the leader", error=str(error))
            return
        if not answer.ok:
            log.error(
                "own pod not labelled: progress reports do not reach the leader",
                status=answer.status,
                message=answer.message,
            )

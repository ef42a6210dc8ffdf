"""Connects the parts and runs them: reflectors, kopf and servers first, then loop and writer for each term as leader.

A lost lease ends the term, not the process: the caches stay full, and the process takes part in the election again.

Its requests to the API server (the chart grants exactly these; with `watchNamespaces` it writes jobs, pods, services,
events and quotas in these namespaces alone):

| resource | verbs | by |
|---|---|---|
| trainingjobs, inferencejobs | list, watch, get, delete | kopf, resync, writer (409, TTL) |
| gpupools, gpuquotas | list, watch, get | kopf, resync, writer |
| gpupools, only the one named `default` | create, patch | default_pool |
| trainingjobs/status, inferencejobs/status, gpupools/status, gpuquotas/status | patch | writer |
| pods | list, watch, get, create, delete | reflector, writer |
| services | create | writer |
| nodes, namespaces, resourcequotas, priorityclasses.scheduling.k8s.io | list, watch | reflectors |
| persistentvolumeclaims, persistentvolumes | list, watch | reflectors |
| events.events.k8s.io | create, patch | events |
| own namespace, and the one that releases share: leases | get, create, update | leader |
| own namespace: secrets | get, create | tls |
| own namespace: pods | patch | leader (label on the own pod) |
| /readyz | get | connection (is an outage over) |
| /.well-known/openid-configuration, /openid/v1/jwks | get | tokens |
"""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NoReturn

import msgspec
import structlog

from rfuav_crds import contract
from rfuav_kube import clock
from rfuav_kube.connection import Connection
from rfuav_kube.reflector import Reflector
from rfuav_kube.requester import LeaseOver
from rfuav_operator.core.model import Pod
from rfuav_operator.settings import Settings
from rfuav_operator.shell import census, metrics
from rfuav_operator.shell.census import Census
from rfuav_operator.shell.leader import Leader, LeaseLost
from rfuav_operator.shell.loop import Loop
from rfuav_operator.shell.reading import kopf_app, resync, watched
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.serving import door, health, tls
from rfuav_operator.shell.serving.intake import Intake
from rfuav_operator.shell.serving.tokens import Tokens
from rfuav_operator.shell.writing import default_pool
from rfuav_operator.shell.writing.events import Events
from rfuav_operator.shell.writing.traces import Traces
from rfuav_operator.shell.writing.writer import Writer

log = structlog.get_logger()

DRAIN = 3.0  # seconds for writes under way at a clean stop
GC_THRESHOLDS = (50_000, 50, 100)


class Operator:
    """The process.

    Args:
        settings: as validated.
        connection: open, for the whole life.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self.stop = asyncio.Event()
        self._kopf_stop = asyncio.Event()
        self._synced = False
        self._filling: list[Reflector[Any, Any, Any]] = []
        self._deciding = False
        self.state = ClusterState(
            settings.defaults(""),
            namespaces=frozenset(settings.watch_namespaces),
            on_dirt=self._nudge,
            on_pod=self._pod_changed,
        )
        self.leader = Leader(
            connection,
            settings.namespace,
            settings.leader,
            pod=os.environ.get("POD_NAME", ""),
            on_renewed=self._renewed,
        )
        self.events = Events(connection, settings.leader.identity)
        self.traces = Traces.from_environment(settings.leader.identity)
        self.writer = Writer(connection, self.state, self.events, settings.writes, self.leader.left, traces=self.traces)
        self.intake = Intake(
            self.state,
            Tokens(connection, contract.TOKEN_AUDIENCE),
            leading=lambda: self.leader.leading and self._deciding,
            on_report=self._nudge,
            per_second=settings.progress.reports_per_second,
        )
        self.pulse = health.Pulse()
        self.loop = Loop(self.state, self.writer, self.intake.take, beat=self.pulse.beat)
        metrics.registry.register(
            Census(self.state.snapshot, lambda: self.loop.usage, lambda: self.leader.leading, self._of_process)
        )

    def _nudge(self) -> None:
        self.loop.nudge()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self.loop.pod_changed(old, new)

    def _unready(self) -> str:
        if self._synced:
            return self.leader.blocked
        missing = ", ".join(reflector.path for reflector in self._filling if not reflector.synced.is_set())
        return f"the caches are not filled yet: {missing}" if missing else "the caches are not filled yet"

    def _renewed(self) -> None:
        """Show another release on standby in the pools' status."""
        if self.leader.rival != self.state.defaults.rival:
            self.state.defaults = msgspec.structs.replace(self.state.defaults, rival=self.leader.rival)
            self.state.touch_all()

    def _of_process(self) -> dict[str, Mapping[tuple[str, ...], float]]:
        """The gauges of this process."""
        aside = (*self.state.unreadable(), *self.loop.set_aside(), *["Write"] * self.writer.set_aside())
        heard = {reflector.resource: reflector.heard_at for reflector in self._filling}
        now = clock.monotonic()
        return {
            "rfuav_ready": {(): float(not self._unready())},
            "rfuav_build_info": {(version("rfuav-operator"),): 1.0},
            "rfuav_objects_set_aside": census.counted(aside),
            "rfuav_watch_silent_seconds": {(name,): now - at for name, at in (heard | self.state.heard_at).items()},
            "rfuav_writer_queues": {(state,): count for state, count in self.writer.depth().items()},
            "rfuav_events_waiting": {(): self.events.waiting},
        }

    def handle_signals(self) -> None:
        """Have SIGTERM and SIGINT stop the operator cleanly."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)

    async def run(self) -> None:
        """Run until `stop` is set, then release the lease.

        Raises:
            ExceptionGroup: errors of the parts that ended; the process must be restarted.
        """
        async with contextlib.AsyncExitStack() as servers:
            await servers.enter_async_context(
                door.serving(
                    health.app(alive=lambda: self.pulse.alive, unready=self._unready),
                    self._settings.health.host,
                    self._settings.health.port,
                    self._settings.health.connections,
                )
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    work = tasks.create_task(self._work(tasks, servers), name="work")
                    await self._until_stopped(work)
            except* _Stop:
                pass
            finally:
                if self.traces is not None:
                    await asyncio.to_thread(self.traces.close)
        log.info("stopped")

    async def _until_stopped(self, work: asyncio.Task[None]) -> NoReturn:
        await self.stop.wait()
        log.info("stopping")
        work.cancel()  # nothing new is decided, and the term ends
        await asyncio.wait([work])
        self._kopf_stop.set()
        raise _Stop

    async def _work(self, tasks: asyncio.TaskGroup, servers: contextlib.AsyncExitStack) -> None:
        """From cold to one term after the other."""
        async with self.pulse.waiting():
            reflectors = await self._fill(tasks, servers)
        while not self.stop.is_set():  # a cancellation is lost when the term fails at the same moment
            async with self.pulse.waiting():
                await self.leader.acquire()
            try:
                await self._lead(reflectors)
            except* (LeaseLost, LeaseOver) as lost:
                log.warning("lost leadership; takes part in the election again", why=_why(lost))

    async def _lead(self, reflectors: list[Reflector[Any, Any, Any]]) -> None:
        """One term, until the lease is lost or the process is stopped."""
        try:
            async with asyncio.TaskGroup() as term:
                term.create_task(self.leader.hold(), name="lease")
                async with self.pulse.waiting():
                    await self._read_again(reflectors)
                term.create_task(self.events.run(), name="events")
                term.create_task(self.writer.run(), name="writer")
                if self._settings.default_pool.enabled:
                    term.create_task(default_pool.apply(self.writer.requests, self._settings.default_pool.spec))
                await self._decide()
        finally:
            self.state.forget_plans()
            await self._release()

    async def _decide(self) -> None:
        self._deciding = True
        try:
            await self.loop.run()
        finally:
            self._deciding = False
            if self.stop.is_set():
                await self.writer.drain(DRAIN)

    async def _release(self) -> None:
        """Let another lead at once, unless a write that was sent may still be carried out: then the lease runs out."""
        if not self.writer.abandoned:
            await self.leader.release()

    async def _fill(
        self, tasks: asyncio.TaskGroup, servers: contextlib.AsyncExitStack
    ) -> list[Reflector[Any, Any, Any]]:
        """Fill the caches, and keep them so."""
        reflectors = self._filling = watched.reflectors(self.state, self._connection)
        for reflector in reflectors:
            tasks.create_task(reflector.run(), name="reflector")
        await self._start_progress_server(tasks, servers)
        await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))
        started = asyncio.Event()
        watching = kopf_app.run(
            self.state,
            self._connection,
            started=started,
            stop=self._kopf_stop,
            spawned=self.handle_signals,  # kopf puts its own handlers in their place
        )
        tasks.create_task(watching, name="kopf")
        await started.wait()
        tasks.create_task(resync.keep_dropping(self.state, self._connection, self._settings.resync_seconds))
        gc.collect()
        gc.freeze()
        self._synced = True
        log.info("synced", jobs=len(self.state.jobs), pods=len(self.state.pods), nodes=len(self.state.nodes))
        return reflectors

    async def _read_again(self, reflectors: list[Reflector[Any, Any, Any]]) -> None:
        """Read what the last leader wrote, pods included, before anything is decided: caches lag, a list does not."""
        reading = (resync.read_all(self.state, self._connection), *(reflector.refresh() for reflector in reflectors))
        await asyncio.gather(*reading)

    async def _start_progress_server(self, tasks: asyncio.TaskGroup, servers: contextlib.AsyncExitStack) -> None:
        progress = self._settings.progress
        if not progress.enabled:
            return
        authority = await tls.shared_authority(self._connection, self._settings.namespace, progress.ca_secret)
        leaf = tls.Leaf(authority, tls.names(self._settings.namespace, progress.service, progress.url))
        tasks.create_task(leaf.run(), name="certificate")
        self.state.defaults = self._settings.defaults(authority.pem)
        await servers.enter_async_context(
            door.serving(self.intake.app(), progress.host, progress.port, progress.connections, leaf.context)
        )


def _why(error: BaseException) -> str:
    """The message of the first error, in nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


class _Stop(Exception):  # noqa: N818  no error: the way out of the task group
    """A clean stop."""


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    gc.set_threshold(*GC_THRESHOLDS)
    async with Connection(settings.kubeconfig, agent="rfuav-operator") as connection:
        operator = Operator(settings, connection)
        operator.handle_signals()
        await operator.run()

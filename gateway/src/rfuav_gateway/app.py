"""Connects the gateway's parts: caches that follow the cluster, the routes, the HTTP server, and probes beside it.

Its own rights (the chart grants exactly these; those before a colon are granted only with that setting):

| resource | verbs | by |
|---|---|---|
| trainingjobs, inferencejobs | get, list, watch | cluster.tasks, cluster.whole, logs.of_jobs |
| gpupools, gpuquotas | list, watch | cluster.whole |
| nodes, namespaces, resourcequotas, persistentvolumeclaims, persistentvolumes | list, watch | cluster.whole |
| priorityclasses.scheduling.k8s.io | list, watch | cluster.whole |
| pods | list, watch | logs.of_jobs, cluster.whole |
| pods/log | get | logs |
| /readyz | get | connection (is an outage over) |
| jobs.batch | list, watch | cluster.preparations |
| compat, in its namespace: jobs.batch | get, create, patch | cluster.preparations |
| compat, in its namespace: events | list | cluster.writes |
| compat, in its namespace: trainingjobs, inferencejobs | get, create, patch, delete | cluster.writes |
| callbacks.secretFile, in its own namespace: leases.coordination.k8s.io, configmaps | get, create, update | callbacks |
| compat.changeLimits, of its pool alone: gpupools | get, patch | cluster.writes |
| proxy.addresses: users, groups | impersonate | access.callers |

In all namespaces, also with compat. Without those of cluster.whole, tasks work and resources answer 503; without
those of cluster.preparations, each read of one asks the API server as its caller, and streams of their logs do not end.
"""

import asyncio
import gc
from collections.abc import Collection
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from rfuav_gateway.access.callers import Callers
from rfuav_gateway.access.rights import Rights
from rfuav_gateway.access.sights import Sights
from rfuav_gateway.callbacks.deliveries import Callbacks
from rfuav_gateway.cluster.aside import Aside
from rfuav_gateway.cluster.planner import Planner
from rfuav_gateway.cluster.preparations import Preparations
from rfuav_gateway.cluster.prometheus import Prometheus
from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.cluster.whole import Whole
from rfuav_gateway.cluster.writes import Writes
from rfuav_gateway.live.live import Live
from rfuav_gateway.logs.kept import Kept, Output
from rfuav_gateway.logs.logs import Logs
from rfuav_gateway.routes import (
    bulk,
    failures,
    jobs,
    live,
    logs,
    page,
    preprocessing,
    previews,
    resources,
    results,
    session,
    starts,
    system,
    tasks,
    usage,
)
from rfuav_gateway.routes.parts import Parts
from rfuav_gateway.serving import metrics as serving_metrics
from rfuav_gateway.serving import problems
from rfuav_gateway.serving.edge import Edge
from rfuav_gateway.serving.rates import Rates
from rfuav_gateway.serving.server import Server
from rfuav_gateway.settings import Settings
from rfuav_gateway.tasks import preparations
from rfuav_gateway.tasks.manifests import Terms
from rfuav_gateway.tasks.roots import Places
from rfuav_gateway.tasks.words import PHRASES
from rfuav_kube import clock
from rfuav_kube.connection import Connection
from rfuav_kube.reflector import Reflector
from rfuav_operator.settings import Connections
from rfuav_operator.shell.serving import door, health

log = structlog.get_logger()

GC_THRESHOLDS = (50_000, 50, 100)
PROBES = Connections(per_peer=32, total=128)


class Gateway:
    """The process.

    Args:
        settings: as validated.
        connection: open, for the whole life.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        compat = settings.compat
        self.tasks = Tasks(compat.namespace if compat.enabled else "")
        whole = Whole()
        rights = Rights(connection, everything_in=compat.namespace if compat.enabled else "")
        rates = Rates(settings)
        self.parts = Parts(
            settings=settings,
            cluster=connection,
            callers=Callers(settings, connection, rates),
            rights=rights,
            sights=Sights(rights),
            tasks=self.tasks,
            whole=whole,
            planner=Planner(whole),
            aside=Aside(),
            writes=Writes(connection, self.tasks),
            rates=rates,
            terms=terms(settings),
            logs=Logs(connection, Kept(Output(one.uri, one.namespace, one.path) for one in settings.outputs)),
            live=Live(self.tasks, whole),
            preparations=Preparations(connection) if settings.trainer_image else None,
            preparation_terms=preparation_terms(settings),
            prometheus=Prometheus(settings.prometheus_url) if settings.prometheus_url else None,
        )
        key = settings.callbacks.key()
        self.callbacks = None if key is None else callbacks(settings, key, connection, self.tasks)
        self.app = routes()
        self.app.state.parts = self.parts
        self.server = Server(settings, edge(settings, self.app), stopping=self._stopping)
        self._synced = asyncio.Event()
        self._ending = asyncio.Event()
        self._pulse = health.Pulse()

    async def run(self) -> None:
        """Serve until a signal ends it."""
        if self._settings.compat.enabled:
            log.warning(
                "compat: requests without credentials are carried out", namespace=self._settings.compat.namespace
            )
        reflectors = self.tasks.reflectors(self._connection)
        whole: list[Reflector[Any, Any, Any]] = [*self.parts.whole.reflectors(self._connection)]
        if self.parts.preparations is not None:
            whole.append(self.parts.preparations.reflector())
        probes = health.app(alive=lambda: self._pulse.alive, unready=self._unready, registry=serving_metrics.registry)
        serving_metrics.registry.register(self._gauges((*reflectors, *whole)))
        async with (
            self._pulse.waiting(),
            door.serving(probes, self._settings.host, self._settings.health_port, PROBES),
        ):
            following = [asyncio.create_task(reflector.run(), name="reflector") for reflector in (*reflectors, *whole)]
            if self.callbacks is not None:
                following.append(asyncio.create_task(self._call_back(reflectors, self.callbacks), name="callbacks"))
            serving = asyncio.create_task(self._serve(reflectors), name="server")
            try:
                done, _ = await asyncio.wait([serving, *following], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (serving, *following):
                    task.cancel()
                await asyncio.gather(serving, *following, return_exceptions=True)

    async def _serve(self, reflectors: list[Reflector[Any, Any, Any]]) -> None:
        await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))
        gc.collect()
        gc.freeze()
        self._synced.set()
        log.info("synced", tasks=len(self.tasks))
        await self.server.serve()

    async def _call_back(self, reflectors: list[Reflector[Any, Any, Any]], own: Callbacks) -> None:
        await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))
        await own.run()

    def _gauges(self, reflectors: Collection[Reflector[Any, Any, Any]]) -> serving_metrics.Gauges:
        def silent() -> dict[str, float]:
            now, found = clock.monotonic(), dict[str, float]()
            for reflector in reflectors:  # of jobs there are two
                found[reflector.resource] = max(now - reflector.heard_at, found.get(reflector.resource, 0.0))
            return found

        return serving_metrics.Gauges(
            {
                "rfuav_gateway_tasks": lambda: len(self.tasks),
                "rfuav_gateway_streams": lambda: self.parts.logs.readers,
                "rfuav_gateway_live_streams": lambda: self.parts.live.readers,
                "rfuav_gateway_callbacks_waiting": lambda: 0 if self.callbacks is None else self.callbacks.waiting,
                "rfuav_gateway_connections": lambda: self.server.open_ones.count,
                "rfuav_gateway_connections_refused": lambda: self.server.open_ones.refused,
            },
            silent,
        )

    def _unready(self) -> str:
        if self._ending.is_set():
            return "stopping"
        return "" if self._synced.is_set() else "the jobs are still being read"

    def _stopping(self) -> None:
        self._ending.set()
        self.parts.live.close()
        self._closing = asyncio.ensure_future(self.parts.logs.close())


def _places(settings: Settings) -> Places:
    base = settings.compat.root if settings.compat.enabled else ""
    return Places({root.path: root.uri for root in settings.roots}, base)


def preparation_terms(settings: Settings) -> preparations.Terms:
    """What the settings say about preparations of data."""
    return preparations.Terms(
        places=_places(settings),
        image=settings.trainer_image,
        resources=settings.resources,
        keep_seconds=settings.keep_preparations_seconds,
        cluster_assigns_users=settings.cluster_assigns_users,
    )


def callbacks(settings: Settings, key: bytes, connection: Connection, held: Tasks) -> Callbacks:
    """What delivers callbacks."""
    own = settings.callbacks
    return Callbacks(
        connection,
        held,
        namespace=own.namespace,
        name=own.name,
        key=key,
        allowed=own.networks(),
        phrases=PHRASES[settings.language],
    )


def terms(settings: Settings) -> Terms:
    """What the settings say about jobs."""
    return Terms(
        places=_places(settings),
        weights_cache=settings.weights_cache,
        results=settings.results,
        pool=settings.pool,
        resources=settings.resources,
        calls_back=settings.callbacks.networks() if settings.callbacks.secret_file is not None else None,
    )


def routes() -> FastAPI:
    """The application: every path, and the OpenAPI document of them all. It answers once its state has the parts."""
    app = FastAPI(
        title="RFUAV gateway",
        version=version("rfuav-gateway"),
        description="Trainings and inferences of drone-signal classifiers, as tasks.",
        responses=problems.ANYWHERE,
    )
    problems.install(app)
    failures.install(app)
    for router in (  # in this order they are tried; a task's status, asked for most, comes early
        logs.router,
        results.router,
        tasks.router,
        starts.router,
        bulk.router,
        preprocessing.router,
        resources.router,
        previews.router,
        usage.router,
        session.router,
        live.router,
        jobs.router,
        page.router,
        system.router,
    ):
        app.include_router(router)
    return app


def edge(settings: Settings, app: ASGIApp) -> ASGIApp:
    """The application with what surrounds it."""
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Namespace", "X-Request-ID", "Last-Event-ID"],
            expose_headers=["X-Request-ID", "RateLimit", "Retry-After"],
        )
    return Edge(app, largest_body=settings.limits.body_kib * 1024, origins=settings.cors_origins)


async def run(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    gc.set_threshold(*GC_THRESHOLDS)
    async with Connection(settings.kubeconfig, agent="rfuav-gateway") as connection:
        await Gateway(settings, connection).run()

"""What the routes work with, and what each request brings: its caller, its namespace and its language."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, NamedTuple, Protocol

import structlog
from fastapi import Depends, Request

from rfuav_gateway.access.callers import Caller, Callers, Unauthenticated
from rfuav_gateway.access.rights import Rights
from rfuav_gateway.access.sights import Sights
from rfuav_gateway.cluster.aside import Aside
from rfuav_gateway.cluster.planner import Planner
from rfuav_gateway.cluster.preparations import Preparations
from rfuav_gateway.cluster.prometheus import Prometheus
from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.cluster.whole import Whole
from rfuav_gateway.cluster.writes import Writes
from rfuav_gateway.live.live import Live
from rfuav_gateway.logs.logs import Logs
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.serving.rates import Rates
from rfuav_gateway.settings import Settings, is_namespace
from rfuav_gateway.tasks.manifests import Terms
from rfuav_gateway.tasks.preparations import Terms as PreparationTerms
from rfuav_gateway.tasks.words import PHRASES, Phrases, language
from rfuav_kube.connection import Connection

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The gateway's parts, as the routes use them."""

    settings: Settings
    cluster: Connection
    callers: Callers
    rights: Rights
    tasks: Tasks
    whole: Whole
    planner: Planner
    aside: Aside
    writes: Writes
    rates: Rates
    terms: Terms
    logs: Logs
    live: Live
    sights: Sights
    preparations: Preparations | None
    preparation_terms: PreparationTerms
    prometheus: Prometheus | None


class Asked(NamedTuple):
    """One request."""

    parts: Parts
    caller: Caller
    namespace: str
    phrases: Phrases


def parts_of(request: Request) -> Parts:
    """The parts of the application that answers."""
    found: Parts = request.app.state.parts
    return found


async def anywhere(request: Request) -> Asked:
    """The caller and what they ask for; the namespace is empty if the request names none and the caller has none.

    Raises:
        Refused: 401 without a known caller, 404 for a namespace that compat does not serve, 429 for too many requests.
    """
    parts = parts_of(request)
    peer = request.client.host if request.client else ""
    try:
        caller = await parts.callers.of(request.headers, peer, request.method)
    except Unauthenticated as error:
        raise Refused(
            HTTPStatus.UNAUTHORIZED,
            "write a token that the cluster knows: Authorization: Bearer TOKEN (kubectl create token NAME)",
            {"WWW-Authenticate": "Bearer"},
        ) from error
    request.scope["state"]["caller"] = caller.name
    await parts.rates.spend("request", caller.name)
    compat = parts.settings.compat
    wanted = request.scope["state"].get("namespace") or request.headers.get("x-namespace", "") or caller.namespace
    if compat.enabled and wanted != compat.namespace:
        raise Refused(HTTPStatus.NOT_FOUND, f"all tasks are in the namespace {compat.namespace}")
    if wanted and not is_namespace(wanted):
        raise Refused(HTTPStatus.BAD_REQUEST, "X-Namespace: write the name of a namespace, as in team-a")
    phrases = PHRASES[language(request.headers.get("accept-language"), parts.settings.language)]
    request.scope["state"]["phrases"] = phrases
    return Asked(parts, caller, wanted, phrases)


AsksAnywhere = Annotated[Asked, Depends(anywhere)]


async def asked(request: Request) -> Asked:
    """The same, in a namespace.

    It calls `anywhere` itself: each dependency costs a request tens of microseconds.

    Raises:
        Refused: 400 without one.
    """
    asks = await anywhere(request)
    if not asks.namespace:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "name the namespace: /ns/NAMESPACE/api/..., or the header X-Namespace: NAMESPACE"
        )
    return asks


Asks = Annotated[Asked, Depends(asked)]


class Named(Protocol):
    """An object of a namespace."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def name(self) -> str:
        """Its name there."""


async def perhaps(request: Request) -> Asked | None:
    """The same of a request that needs no credentials; None: it has none."""
    parts = parts_of(request)
    try:
        return await anywhere(request)
    except Refused as error:
        if error.status != HTTPStatus.UNAUTHORIZED or "authorization" in request.headers:
            raise
    await parts.rates.spend("request", request.client.host if request.client else "")
    return None


PerhapsAsks = Annotated[Asked | None, Depends(perhaps)]


def audit(asks: Asked, did: str, task_id: str, job: Named) -> None:
    """Log who did what, for those who look for it later."""
    log.info("audit", did=did, caller=asks.caller.name, task=task_id, job=f"{job.namespace}/{job.name}")

"""Signing in to the page: the token becomes a cookie that scripts cannot read. Nothing is kept here."""

import asyncio
import ipaddress
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response

from rfuav_crds.contract import PLURALS
from rfuav_gateway.access.callers import COOKIE, LONGEST_IN_COOKIE, Unauthenticated, fits_cookie
from rfuav_gateway.routes.live import known, sight
from rfuav_gateway.routes.parts import Asked, PerhapsAsks, parts_of
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.settings import Settings
from rfuav_gateway.tasks import page_bodies as bodies
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.page_bodies import PagePath
from rfuav_gateway.tasks.sight import Sight
from rfuav_gateway.tasks.words import language
from rfuav_kube import clock

router = APIRouter()

MOST_NAMESPACES = 200
_DONE = HTTPStatus.NO_CONTENT.value
AT_ONCE = 16
_Path = Annotated[PagePath, Query(description="Path of the page, as it was given to sign in.")]


@router.post("/api/v2/session", status_code=HTTPStatus.NO_CONTENT, responses={_DONE: {"description": "Signed in."}})
async def sign_in(body: bodies.SignIn, request: Request) -> Response:
    """Sign in to the page: sets the cookie `rfuav_session`."""
    parts = parts_of(request)
    peer = request.client.host if request.client else ""
    await parts.rates.spend("request", peer)
    token = body.token.strip()
    if not fits_cookie(token):
        words = (
            f"the page takes tokens of at most {LONGEST_IN_COOKIE} letters, digits and signs: use a service account's"
        )
        raise Refused(HTTPStatus.BAD_REQUEST, words)
    try:
        await parts.callers.bearing(token, peer)
    except Unauthenticated as error:
        raise Refused(
            HTTPStatus.UNAUTHORIZED, "the cluster does not know this token: kubectl create token NAME"
        ) from error
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    secure = _secure(request, parts.settings)
    answer.set_cookie(COOKIE, token, path=body.path, secure=secure, httponly=True, samesite="strict")
    return answer


@router.delete("/api/v2/session", status_code=HTTPStatus.NO_CONTENT, responses={_DONE: {"description": "Signed out."}})
async def sign_out(request: Request, path: _Path = "/") -> Response:
    """Sign out of the page: clears the cookie."""
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    secure = _secure(request, parts_of(request).settings)
    answer.delete_cookie(COOKIE, path=path, secure=secure, httponly=True, samesite="strict")
    return answer


@router.get("/api/v2/session")
async def session(request: Request, asks: PerhapsAsks) -> bodies.Session:
    """Who is signed in, and where they may do what; without credentials, how to sign in."""
    parts = parts_of(request)
    peer = request.client.host if request.client else ""
    compat = parts.settings.compat.enabled
    seen = None if asks is None else await sight(asks)
    return bodies.Session(
        user=None if asks is None or compat else asks.caller.name,
        sign_in="none" if compat else "proxy" if parts.callers.is_proxy(peer) else "token",
        compat=compat,
        namespace="" if asks is None else asks.namespace,
        language=language(request.headers.get("accept-language"), parts.settings.language),
        version=version("rfuav-gateway"),
        now=clock.now(),
        namespaces=[] if asks is None or seen is None else await _namespaces(asks, seen),
        pools=seen is not None and seen.pools,
        all_namespaces=seen is not None and seen.is_whole,
    )


async def _namespaces(asks: Asked, seen: Sight) -> list[bodies.NamespaceRights]:
    """What the caller may do in each of the namespaces that they see."""
    names = [name for name in known(asks) if seen.sees("training", name) or seen.sees("inference", name)]
    free = asyncio.Semaphore(AT_ONCE)

    async def rights(name: str) -> bodies.NamespaceRights:
        async with free:
            creates = [kind for kind in KINDS if await _may(asks, "create", kind, name)]
            return bodies.NamespaceRights(
                name=name,
                create=bool(creates),
                creates=creates,
                update=await _may(asks, "patch", "training", name),
                delete=await _may(asks, "delete", "training", name),
                logs=await asks.parts.rights.may_read_logs(asks.caller, name),
            )

    return await asyncio.gather(*(rights(name) for name in names[:MOST_NAMESPACES]))


async def _may(asks: Asked, verb: str, kind: TaskType, namespace: str) -> bool:
    resource, rights = PLURALS[KINDS[kind]], asks.parts.rights
    return await rights.may(asks.caller, verb, resource) or await rights.may(asks.caller, verb, resource, namespace)


def _secure(request: Request, settings: Settings) -> bool:
    """Whether the cookie is for TLS alone.

    Raises:
        Refused: 400 for a page without TLS that is not on this machine: others could read the token.
    """
    origin = urlsplit(request.headers.get("origin", ""))
    if origin.scheme != "http":
        return True
    if settings.insecure_cookies or _is_loopback(origin.hostname or ""):
        return False
    words = "open the page with https: without TLS others can read your token (or set insecureCookies of the gateway)"
    raise Refused(HTTPStatus.BAD_REQUEST, words)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

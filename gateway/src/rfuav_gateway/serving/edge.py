"""What surrounds every request: its id, its namespace, the size of its body, protecting headers, one log line.

Pure ASGI: a middleware of Starlette would cost each request a task and a queue.
"""

import re
import secrets
import time
from collections.abc import Collection, Iterable
from http import HTTPStatus

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rfuav_gateway.serving import metrics, problems

log = structlog.get_logger()

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NAMESPACE = re.compile(r"/ns/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)(/.*)")
_PROTECTING = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
# Swagger's page of the OpenAPI document loads its scripts and styles from elsewhere.
_DOCS = ("/docs", "/redoc")
_READS = ("GET", "HEAD", "OPTIONS")  # thousands a second: those that succeed are logged at level debug
_EVENTS = b"text/event-stream; charset=utf-8"
_DRAINED = 16  # times the largest body, of one that is too large
_SHOWN = 300  # characters of a path


class TooLarge(Exception):  # noqa: N818  an answer, not a fault
    """The body is larger than allowed."""


class Edge:
    """Wraps an application.

    Args:
        app: the routes.
        largest_body: in bytes.
        origins: whose pages may send requests that change something.
    """

    def __init__(self, app: ASGIApp, *, largest_body: int, origins: Collection[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._largest = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        headers = scope["headers"]
        sent_id = _header(headers, b"x-request-id")
        request_id = sent_id if sent_id is not None and _ID.fullmatch(sent_id) else secrets.token_hex(8).encode()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        path = scope["path"]
        found = _NAMESPACE.fullmatch(path)
        if found is not None:
            state["namespace"] = found[1]
            scope["path"] = found[2]
            scope["raw_path"] = found[2].encode()
        began = time.perf_counter()
        status, size, is_stream = 0, 0, False
        protecting = _PROTECTING if scope["path"] not in _DOCS else _PROTECTING[:3]

        async def counted_send(message: Message) -> None:
            nonlocal status, size, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                is_stream = _header(message["headers"], b"content-type") == _EVENTS
                own = {name for name, _ in message["headers"]}  # the page has a policy of its own
                more = (header for header in protecting if header[0] not in own)
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), *more]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            with structlog.contextvars.bound_contextvars(id=state["request_id"]):  # in whatever is logged for it
                await self._bounded(scope, headers, receive, counted_send)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "unknown")
            metrics.answered(scope["method"], route, status, seconds, stream=is_stream)
            quiet = status < HTTPStatus.BAD_REQUEST and scope["method"] in _READS
            (log.debug if quiet else log.info)(
                "request",
                id=state["request_id"],
                method=scope["method"],
                path=path[:_SHOWN],
                status=status,
                bytes=size,
                ms=round(seconds * 1000, 2),
                caller=state.get("caller", ""),
                peer=scope["client"][0] if scope.get("client") else "",
            )

    async def _bounded(
        self, scope: Scope, headers: Iterable[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> None:
        """The request, unless its body is too large, by its headers or in fact."""
        largest, came, more = self._largest, 0, True
        length = _header(headers, b"content-length")
        too_large = length is not None and length.isdigit() and int(length) > largest
        began = False

        async def bounded_receive() -> Message:
            nonlocal came, more, too_large
            message = await receive()
            more = message.get("more_body", False)
            came += len(message.get("body", b""))
            if came > largest:
                too_large = True
                raise TooLarge
            return message

        async def noting_send(message: Message) -> None:
            nonlocal began
            if not too_large or began:  # otherwise it is what the routes say of a body that cannot be read
                began = True
                await send(message)

        if _is_forged(scope["method"], headers, self._origins):
            words = "a page of another origin sent this: list it in corsOrigins, or send it from elsewhere"
            await problems.answer(HTTPStatus.FORBIDDEN, words)(scope, receive, send)
            return
        if not too_large:
            try:
                await self._app(scope, bounded_receive, noting_send)
            except Exception:  # it is answered; the connection and the others go on
                if not too_large:
                    log.exception("request failed", path=scope["path"][:_SHOWN])
        if too_large and not began:
            if more:
                await _drain(receive, _DRAINED * largest)
            words = f"write a body of at most {largest // 1024} KiB"
            await problems.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)(scope, receive, send)


async def _drain(receive: Receive, most: int) -> None:
    """Drop the rest of a body: a client that still sends would see a closed connection instead of the answer."""
    came = 0
    while came < most:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        came += len(message.get("body", b""))


def _is_forged(method: str, headers: Iterable[tuple[bytes, bytes]], origins: Collection[bytes]) -> bool:
    """Whether a browser says that a page of a foreign origin made it send a request that changes something.

    Without TLS browsers leave Sec-Fetch-Site out, and send Origin alone.
    """
    if method in _READS:
        return False
    site, origin = _header(headers, b"sec-fetch-site"), _header(headers, b"origin")
    if site is None:
        own = origin is None or origin.partition(b"://")[2] == _header(headers, b"host")
    else:
        own = site in (b"same-origin", b"none")
    return not own and origin not in origins


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)

"""Who sends a request: the user of a bearer token, a user named by a trusted proxy, or anybody (compat).

The page keeps its user's token in a cookie. A cookie comes with whatever a browser sends, so it counts only in requests
that the page itself can have sent.

A token is shown to the API server (SelfSubjectReview, authentication.k8s.io/v1): it says who that is. The gateway needs
no right for that, and decides nothing itself.
"""

import ipaddress
import re
from collections import OrderedDict
from hashlib import sha256
from http import HTTPStatus
from typing import NamedTuple, Protocol

import structlog
from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from rfuav_gateway.access.remembered import Remembered
from rfuav_gateway.settings import Settings
from rfuav_kube.connection import Connection, ConnectionProblem, Credential

log = structlog.get_logger()

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
KNOWN_SECONDS = 10.0
MOST = 4096  # callers that are remembered
LONGEST_TOKEN = 16_384  # bytes
COOKIE = "rfuav_session"
LONGEST_IN_COOKIE = 4000  # bytes: browsers drop a cookie of more than 4096, its name and attributes included
_READS = ("GET", "HEAD", "OPTIONS")
_IN_COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]+")  # RFC 6265
MOST_GROUPS = 128
_ACCOUNT = "system:serviceaccount:"


class Caller(NamedTuple):
    """A user, and the headers under which the API server acts for them."""

    name: str
    key: str  # two requests with the same one are sent by the same caller
    credential: Credential | None  # None: the gateway's own, in compat
    namespace: str  # of tasks when the request names none; empty: it has to


class Unauthenticated(Exception):  # noqa: N818  an answer, not a fault
    """Nobody is known by these credentials."""


class Unavailable(Exception):  # noqa: N818  an answer, not a fault
    """The API server does not answer: nobody can be asked."""


class Failures(Protocol):
    """Counts tokens of nobody, by address; raises what the edge answers when there are too many."""

    async def left(self, what: str, caller: str) -> None: ...  # noqa: D102
    async def spend(self, what: str, caller: str) -> object: ...  # noqa: D102


class Callers:
    """Finds the caller of a request."""

    def __init__(self, settings: Settings, connection: Connection, failures: Failures) -> None:
        self._settings = settings
        self._failures = failures
        self._seen: OrderedDict[str, None] = OrderedDict()  # keys of tokens that the API server has known
        self._connection = connection
        self._proxies = [ipaddress.ip_network(address) for address in settings.proxy.addresses]
        self._known: Remembered[str, str] = Remembered(KNOWN_SECONDS, MOST)

    async def of(self, headers: Headers, peer: str, method: str = "GET") -> Caller:
        """The caller.

        A token that the API server has not known before is asked about as long as `Failures` allow its address that.

        Args:
            headers: of the request.
            peer: address that it comes from.
            method: of the request.

        Raises:
            Unauthenticated: no credentials, or none that the API server knows.
            Unavailable: it cannot be asked now.
        """
        compat = self._settings.compat
        if compat.enabled:
            return Caller(name=f"compat:{peer}", key=peer, credential=None, namespace=compat.namespace)
        if self._proxies and self.is_proxy(peer):
            return self._named_by_proxy(headers)
        token = _token(headers, method)
        if not token or len(token) > LONGEST_TOKEN or not token.isascii():
            raise Unauthenticated
        return await self.bearing(token, peer)

    async def bearing(self, token: str, peer: str) -> Caller:
        """The caller whose token this is.

        Raises:
            Unauthenticated, Unavailable: as above.
        """
        key = sha256(token.encode()).hexdigest()
        name = await self._known.get(key, lambda: self._ask_first(key, token, peer))
        if not name:
            raise Unauthenticated
        return Caller(
            name=name,
            key=key,
            credential=_bearer(token),
            namespace=self._settings.default_namespace or _own_namespace(name),
        )

    async def still(self, caller: Caller) -> bool:
        """Whether the API server still knows the caller's token; of others, whose requests carry none, it is true.

        Raises:
            Unavailable: it cannot be asked now.
        """
        credential = caller.credential
        if credential is None or credential.impersonates:
            return True
        token = credential.headers[0][1].removeprefix("Bearer ")
        return await self._known.get(caller.key, lambda: self._ask(token)) == caller.name

    def is_proxy(self, peer: str) -> bool:
        """Whether an address is that of a proxy which names the user."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _named_by_proxy(self, headers: Headers) -> Caller:
        proxy = self._settings.proxy
        user = headers.get(proxy.user_header, "").strip()
        if not user or user.startswith("system:"):  # a proxy names people, not parts of the cluster
            raise Unauthenticated
        named = (group.strip() for group in headers.get(proxy.groups_header, "").split(","))
        groups = [group for group in named if group and not group.startswith("system:")][:MOST_GROUPS]
        impersonated = (("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups))
        return Caller(
            name=user,
            key=sha256(repr((user, sorted(groups))).encode()).hexdigest(),
            credential=Credential(impersonated, impersonates=True),
            namespace=self._settings.default_namespace,
        )

    async def _ask_first(self, key: str, token: str, peer: str) -> str:
        """The same, unless too many tokens of this address were those of nobody."""
        known_before = key in self._seen
        if not known_before:
            await self._failures.left("failure", peer)
        name = await self._ask(token)
        if name:
            self._seen[key] = None
            self._seen.move_to_end(key)
            if len(self._seen) > MOST:
                self._seen.popitem(last=False)
        elif not known_before:
            await self._failures.spend("failure", peer)
        return name

    async def _ask(self, token: str) -> str:
        """The name of the token's user; empty: there is none."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = await self._connection.request("POST", REVIEWS, body, credential=_bearer(token))
        except ConnectionProblem as error:
            raise Unavailable(str(error)) from error
        if answer.ok:
            return str(answer.body.get("status", {}).get("userInfo", {}).get("username") or "")
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ""
        raise Unavailable(answer.message)


def fits_cookie(token: str) -> bool:
    """Whether a browser keeps the token as the value of a cookie."""
    return len(token) <= LONGEST_IN_COOKIE and _IN_COOKIE.fullmatch(token) is not None


def _token(headers: Headers, method: str) -> str:
    """The token of a request: its own, else that of the page's cookie; empty: there is none."""
    if "authorization" in headers:
        scheme, _, token = headers["authorization"].partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    if "cookie" not in headers or not _is_of_the_page(headers, method):
        return ""
    return cookie_parser(headers["cookie"]).get(COOKIE, "")


def _is_of_the_page(headers: Headers, method: str) -> bool:
    """Whether the page can have sent the request; one that changes something has to prove it."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin" or (site == "none" and method in _READS)  # none: typed by the user
    if origin is not None:  # without TLS browsers leave the other header out
        return origin.partition("://")[2] == headers.get("host")
    return method in _READS


def _bearer(token: str) -> Credential:
    return Credential((("Authorization", f"Bearer {token}"),))


def _own_namespace(name: str) -> str:
    """The namespace of a service account."""
    return name.removeprefix(_ACCOUNT).partition(":")[0] if name.startswith(_ACCOUNT) else ""

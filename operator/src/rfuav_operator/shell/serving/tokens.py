"""The sender of a progress report: a pod-bound service-account token, verified offline with the cluster's own keys."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from typing import Any, NamedTuple

import jwt
import structlog

from rfuav_kube import clock
from rfuav_kube.connection import Connection, ConnectionProblem

log = structlog.get_logger()

KEY_SET = "application/jwk-set+json"  # served as nothing else
ALGORITHMS = ["RS256", "ES256"]
REFRESH_AT_MOST_EVERY = 10.0  # seconds
RETRY_AT_MOST_EVERY = 1.0  # seconds, after a refresh that failed
REMEMBERED = 10_000
ISSUERS = 4
LEEWAY = 10.0  # seconds that clocks may differ


class Unauthorized(Exception):  # noqa: N818  an answer, not a fault
    """The token proves nothing."""


class Sender(NamedTuple):
    """The pod that a token is bound to."""

    namespace: str
    pod: str
    uid: str


class Tokens:
    """Checks tokens for one audience.

    Args:
        audience: what the token must have been issued for.
    """

    def __init__(self, connection: Connection, audience: str) -> None:
        self._connection = connection
        self._audience = audience
        self._issuers: list[str] = []  # the newest first; tokens of those before it are good until they expire
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_at = float("-inf")
        self._failed = (float("-inf"), "")  # when a refresh failed last, and why
        self._asking = asyncio.Lock()
        self._checked: OrderedDict[bytes, tuple[Sender, float]] = OrderedDict()

    async def sender(self, token: str) -> Sender:
        """The pod that sent the token.

        Raises:
            Unauthorized: not a token of this cluster for this audience, expired, or bound to no pod.
            ConnectionProblem: the cluster's keys cannot be read.
        """
        digest = hashlib.sha256(token.encode()).digest()
        if (known := self._checked.get(digest)) is not None and known[1] > clock.now().timestamp():
            return known[0]
        claims = await self._claims(token)
        sender = _bound_pod(claims)
        self._checked[digest] = (sender, float(claims["exp"]))
        if len(self._checked) > REMEMBERED:
            self._checked.popitem(last=False)
        return sender

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            kid = str(jwt.get_unverified_header(token).get("kid") or "")
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Unauthorized("this is not a token") from error
        try:
            try:
                return self._decode(token, await self._key(kid))
            except (jwt.InvalidIssuerError, jwt.InvalidSignatureError):  # the cluster may have changed either
                if not await self._read_again():
                    raise
            return self._decode(token, await self._key(kid))
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token is not accepted: {error}") from error

    def _decode(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self._audience,
            issuer=self._issuers,
            options={
                "require": ["exp", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        # By the clock of the API server, which issued it; the library would ask this machine's own.
        now = clock.now().timestamp()
        if not _number(claims.get("nbf", 0)) - LEEWAY <= now <= _number(claims["exp"]) + LEEWAY:
            raise Unauthorized("the token is not accepted: it has expired, or is not valid yet")
        return claims

    async def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys:
            await self._read_again()
        try:
            return self._keys[kid]
        except KeyError as error:
            raise Unauthorized("the token is not signed with a key of this cluster") from error

    async def _read_again(self) -> bool:
        """Read issuer and keys again, unless that was tried a moment ago; whether they were read since the call."""
        called = time.monotonic()
        async with self._asking:
            if called - self._asked_at > REFRESH_AT_MOST_EVERY:
                at, why = self._failed
                if called - at < RETRY_AT_MOST_EVERY:  # of all that wait for the answer, one asks
                    raise ConnectionProblem(why)
                try:
                    await self._refresh()
                except ConnectionProblem as error:
                    self._failed = time.monotonic(), str(error)
                    log.warning("tokens not checked", error=str(error))
                    raise
        return self._asked_at >= called

    async def _refresh(self) -> None:
        discovery = await self._connection.request("GET", "/.well-known/openid-configuration")
        keys = await self._connection.request("GET", "/openid/v1/jwks", accept=KEY_SET)
        for answer in (discovery, keys):
            if not answer.ok:
                raise ConnectionProblem(f"the cluster's token keys cannot be read: {answer.status} {answer.message}")
        try:
            issuer = str(discovery.body["issuer"])
            self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(keys.body).keys if key.key_id}
        except (KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
            raise ConnectionProblem(f"the cluster's token keys cannot be read: {error!r}") from error
        self._issuers = [issuer, *(known for known in self._issuers if known != issuer)][:ISSUERS]
        self._asked_at = time.monotonic()
        log.info("token keys read", keys=len(self._keys), issuer=issuer)


def _number(claim: Any) -> float:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise Unauthorized("the token is not accepted: its times are not numbers")
    return float(claim)


def _bound_pod(claims: dict[str, Any]) -> Sender:
    bound = claims.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, dict) else None
    if not isinstance(bound, dict) or not isinstance(pod, dict):
        raise Unauthorized("the token is not bound to a pod")
    return Sender(namespace=str(bound.get("namespace")), pod=str(pod.get("name")), uid=str(pod.get("uid")))

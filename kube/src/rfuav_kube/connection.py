"""The way to the API server: one aiohttp session with the credentials that the `kubernetes` package loads.

Requests of the reflectors, the writer and the leader election go out here. An answer with a status comes back as
`Answer`, whatever the status; `NotSent` means that the server cannot have acted on it, `Unknown` that it may have.
"""

import asyncio
import email.utils
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import aiohttp
import orjson
from kubernetes import client, config
from multidict import CIMultiDict

from rfuav_kube import clock
from rfuav_kube.outage import Outage

MERGE_PATCH = "application/merge-patch+json"
READYZ, READYZ_TIMEOUT = "/readyz", 2.0
EARLIEST, LATEST = (
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2200, 1, 1, tzinfo=UTC),
)  # the dates of others are believed between them
LONGEST_WAIT = 30.0  # seconds for which a Retry-After is obeyed
_OBJECTS = ("/api/", "/apis/")  # paths below this are answered with JSON objects


class ConnectionProblem(RuntimeError):  # noqa: N818  reads as what it is where it is caught
    """No way to the API server."""


class NotSent(ConnectionProblem):
    """The request did not reach the API server."""


class Unsendable(ConnectionProblem):
    """The request cannot be put into JSON: it is not sent, and another try would not be either."""


class Unknown(ConnectionProblem):
    """The request may have reached the API server, its outcome is not known."""


class Credential(NamedTuple):
    """As who a request is sent, instead of as this process."""

    headers: Sequence[tuple[str, str]]  # Authorization, or Impersonate-User and -Group, which may repeat
    impersonates: bool = False  # this process's own credentials go along: it may act for others


class Answer(NamedTuple):
    """What the API server answered."""

    status: int
    body: Any
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def reason(self) -> str:
        """The machine-readable reason of a refusal, as in AlreadyExists."""
        return str(self.body.get("reason") or "") if isinstance(self.body, dict) else ""

    @property
    def message(self) -> str:
        """The API server's own words."""
        if isinstance(self.body, dict):
            return str(self.body.get("message") or self.body.get("reason") or self.status)
        return str(self.body or self.status)


class Credentials(NamedTuple):
    """What a client of its own needs to reach the API server."""

    server: str  # its URL
    ca_path: str | None
    insecure: bool  # the server's certificate is not checked
    token: str | None
    certificate_path: str | None
    private_key_path: str | None


class Connection:
    """A session with the API server.

    Args:
        kubeconfig: path of a kubeconfig; empty: in-cluster credentials, else KUBECONFIG or ~/.kube/config.
        agent: the program, as the API server's audit log names it.
    """

    def __init__(self, kubeconfig: str = "", *, agent: str) -> None:
        self._config = _load(kubeconfig)
        self._agent = agent
        self._session: aiohttp.ClientSession | None = None
        self._foreign: aiohttp.ClientSession | None = None  # without our certificate, which would outrank a token
        self._outage = Outage(self._not_ready)

    @property
    def host(self) -> str:
        """The API server's URL."""
        return str(self._config.host).rstrip("/")

    async def __aenter__(self) -> Self:
        self._session = self._new_session(certificate=True)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._outage.close()
        for session in (self._session, self._foreign):
            if session is not None:
                await session.close()

    def _new_session(self, *, certificate: bool) -> aiohttp.ClientSession:
        tls = ssl.create_default_context(cafile=self._config.ssl_ca_cert) if self.host.startswith("https") else False
        if isinstance(tls, ssl.SSLContext):
            if certificate and self._config.cert_file:
                tls.load_cert_chain(self._config.cert_file, self._config.key_file)
            if not self._config.verify_ssl:
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0, keepalive_timeout=60),
            headers={"User-Agent": self._agent, "Accept": "application/json"},
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),  # callers share a session
        )

    def _token(self) -> str:
        # Asked for every request: the package reads the token file again when the token gets old.
        token = str(self._config.get_api_key_with_prefix("BearerToken", alias="authorization") or "")
        scheme, _, rest = token.partition(" ")
        return rest if scheme.lower() == "bearer" else token

    def _headers(self, credential: Credential | None) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict() if credential is None else CIMultiDict(credential.headers)
        if (credential is None or credential.impersonates) and (token := self._token()):
            headers["Authorization"] = f"Bearer {token}"
        return headers

    async def reachable(self) -> bool:
        """Wait after a failure until the API server answers again; whether it had been away (see `Outage.over`)."""
        return await self._outage.over()

    async def _not_ready(self) -> str:
        """Why the API server is not ready; empty: it is. A 403 counts as ready."""
        try:
            answer = await self.request("GET", READYZ, timeout=READYZ_TIMEOUT)
        except ConnectionProblem as error:
            return str(error)
        return (
            ""
            if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
            else f"GET {READYZ}: {answer.status} {answer.message}"
        )

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        idle: float,
        credential: Credential | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A long GET; `idle` is the longest silence in seconds, `credential` as for `request`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=idle)
        sent = clock.monotonic()
        async with self._open(credential).get(
            self.host + path, params=params, headers=self._headers(credential), timeout=timeout
        ) as response:
            _hear(response, sent)
            yield response

    async def get_bytes(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: str = ""
    ) -> tuple[int, bytes, float | None]:
        """A GET whose body the caller decodes: status, body, Retry-After."""
        headers = self._headers(None)
        if accept:
            headers["Accept"] = accept
        sent = clock.monotonic()
        try:
            timeout = aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=20)
            async with self._open().get(self.host + path, params=params, headers=headers, timeout=timeout) as response:
                _hear(response, sent)
                return response.status, await response.read(), retry_after(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotSent(f"GET {path}: {_words(error)}") from error

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 10,  # noqa: ASYNC109  the caller's lease bounds it
        credential: Credential | None = None,
    ) -> Answer:
        """One request and its answer, in at most `timeout` seconds.

        Args:
            method: of HTTP.
            path: from the server's root on.
            body: is sent as JSON.
            params: the query.
            content_type: of the body.
            accept: the type of the answer.
            timeout: in seconds, for the whole exchange.
            credential: as who it is sent, instead of as this process.

        Raises:
            NotSent: no connection could be made.
            Unsendable: the body cannot be put into JSON.
            Unknown: no answer came, or none of the API server.
        """
        headers = self._headers(credential)
        headers["Accept"] = accept
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            try:
                data = orjson.dumps(body)
            except TypeError as error:
                raise Unsendable(f"{method} {path}: {error}") from error
        sent = clock.monotonic()
        try:
            async with self._open(credential).request(
                method,
                self.host + path,
                data=data,
                params=params,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                _hear(response, sent)
                answer = Answer(response.status, _parse(await response.read()), retry_after(response))
        except aiohttp.ClientConnectorError as error:
            raise NotSent(f"{method} {path}: {_words(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unknown(f"{method} {path}: {_words(error)}") from error
        if answer.ok and path.startswith(_OBJECTS) and not isinstance(answer.body, dict):
            raise Unknown(f"{method} {path}: answered {answer.status} without an API object, probably by a proxy")
        return answer

    def credentials(self) -> Credentials:
        """The same way for another client, as of now: a token is read again when it gets old."""
        return Credentials(
            server=self.host,
            ca_path=self._config.ssl_ca_cert,
            insecure=not self._config.verify_ssl,
            token=self._token() or None,
            certificate_path=self._config.cert_file,
            private_key_path=self._config.key_file,
        )

    def _open(self, credential: Credential | None = None) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the connection is not open")
        if credential is None or credential.impersonates:
            return self._session
        if self._foreign is None:
            self._foreign = self._new_session(certificate=False)
        return self._foreign


def _load(kubeconfig: str) -> client.Configuration:
    loaded = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(config_file=kubeconfig, client_configuration=loaded, persist_config=False)  # type: ignore[no-untyped-call]
            return loaded
        try:
            config.load_incluster_config(client_configuration=loaded)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            config.load_kube_config(client_configuration=loaded, persist_config=False)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        where = kubeconfig or "in-cluster credentials, KUBECONFIG or ~/.kube/config"
        raise ConnectionProblem(f"no credentials for a cluster in {where}: {error}") from error
    return loaded


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data) if data else None
    except orjson.JSONDecodeError:
        return data.decode(errors="replace")


def _hear(response: aiohttp.ClientResponse, sent: float) -> None:
    try:
        date = email.utils.parsedate_tz(response.headers.get("Date", ""))
        at = None if date is None else email.utils.mktime_tz(date)
    except (ValueError, OverflowError, LookupError, TypeError):  # of proxies before the API server
        return
    if at is not None and EARLIEST.timestamp() < at < LATEST.timestamp():
        clock.heard(at, sent)


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that an answer asks to wait, as far as that is obeyed; None: it does not."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else None


def _words(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, asyncio.TimeoutError) else f"{type(error).__name__}: {error}"

"""Settings of the gateway: a YAML file, then the environment (`RFUAV_GATEWAY__SECTION__NAME`), then `--set` flags."""

import base64
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator

from rfuav_operator import configuration
from rfuav_operator.configuration import Section

PREFIX = "RFUAV_GATEWAY__"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RATE = re.compile(r"[1-9][0-9]{0,6}/(second|minute|hour)")


def is_namespace(name: str) -> bool:
    """Whether a namespace may have this name: a DNS label of RFC 1123."""
    return _NAMESPACE.fullmatch(name) is not None


def _namespace(name: str) -> str:
    if name and not is_namespace(name):
        raise ValueError("write the name of a namespace, as in team-a")
    return name


def _rate(text: str) -> str:
    if not _RATE.fullmatch(text):
        raise ValueError("write a number and second, minute or hour, as in 10/minute")
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"write an address or a network, as in 10.0.0.7 or 10.0.0.0/24: {error}") from error
    return text


def _folder(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("write an absolute path without .., as in /data")
    return path.rstrip("/") or "/"


def _uri(uri: str) -> str:
    if "://" not in uri:
        raise ValueError("write a URI, as in pvc://captures or s3://bucket/folder")
    return uri.rstrip("/")


def _http(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise ValueError("write a URL as in http://prometheus.monitoring:9090")
    return url.rstrip("/")


Namespace = Annotated[str, AfterValidator(_namespace)]
Rate = Annotated[str, AfterValidator(_rate)]


class Root(Section):
    """A folder of the old service, and where it is now."""

    path: Annotated[str, AfterValidator(_folder)] = Field(description="the folder as clients name it: /data")
    uri: Annotated[str, AfterValidator(_uri)] = Field(description="where it is: pvc://CLAIM/FOLDER or s3://BUCKET")


class Output(Section):
    """A place where outputs of one namespace are, mounted in the gateway: finished tasks' logs are read there."""

    uri: Annotated[str, AfterValidator(_uri)] = Field(description="what outputs there begin with: pvc://CLAIM/FOLDER")
    namespace: Namespace = Field(min_length=1, description="namespace of the tasks: only their logs are read there")
    path: Annotated[str, AfterValidator(_folder)] = Field(description="the folder where it is mounted: /mnt/captures")


class Compat(Section):
    """The face for the trusted network of the old service: no credentials, one namespace."""

    enabled: bool = Field(default=False, description="whether requests without credentials are answered")
    namespace: Namespace = Field("", description="the namespace of all tasks; needed when enabled")
    root: Annotated[str, AfterValidator(_folder)] = Field(
        "/data", description="folder that relative paths are below; must be below one of the roots"
    )
    creates: Rate = Field("600/minute", description="creates of one client address, as a rate")
    burst: int = Field(100, ge=1, description="creates of one client address at once")
    streams: int = Field(1000, ge=1, description="streams of logs that one client address reads at a time")
    change_limits: bool = Field(
        default=False, description="whether everybody may change the limits of the pool; the chart then gives the right"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.enabled and not self.namespace:
            raise ValueError("compat.enabled needs compat.namespace: the namespace of all its tasks")
        return self


class Proxy(Section):
    """An authenticating proxy (oauth2-proxy) whose headers are believed."""

    addresses: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="addresses or networks of the proxy; empty: no header of a proxy is believed"
    )
    user_header: str = Field("X-Forwarded-User", description="header with the user's name")
    groups_header: str = Field("X-Forwarded-Groups", description="header with the groups, separated by commas")


_SECRET = "whsec_"  # noqa: S105  how all of them begin
_SHORTEST, _LONGEST = 24, 64  # bytes of a secret, as the Standard Webhooks specification says


def signing_key(text: str) -> bytes:
    """The key of a secret: `whsec_` and base64.

    Raises:
        ValueError: it is none; what was written is not in the message.
    """
    try:
        key = base64.b64decode(text.strip().removeprefix(_SECRET), validate=True)
    except ValueError:
        key = b""
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(
            f"callbacks.secretFile: write {_SECRET} and {_SHORTEST} to {_LONGEST} random bytes in base64, as in: "
            f'echo "{_SECRET}$(head -c 32 /dev/urandom | base64)"'
        )
    return key


class Callbacks(Section):
    """POSTs that tell when a task has ended."""

    secret_file: Path | None = Field(
        None, description="file with the secret that signs them, as in whsec_BASE64; none: there are no callbacks"
    )
    allow: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="networks that they may go to beside the public internet, as in 10.0.0.0/24"
    )
    namespace: Namespace = Field(
        "rfuav-system", description="the gateway's own namespace, for the Lease and the record"
    )
    name: str = Field("rfuav-gateway-callbacks", description="name of the Lease, and of the ConfigMap with the record")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.key()
        return self

    def key(self) -> bytes | None:
        """What messages are signed with; None: there are no callbacks."""
        if self.secret_file is None:
            return None
        try:
            return signing_key(self.secret_file.read_text())
        except OSError as error:
            raise ValueError(f"callbacks.secretFile cannot be read: {error}") from error

    def networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """`allow`, as networks."""
        return [ipaddress.ip_network(text) for text in self.allow]


class Limits(Section):
    """What one caller, and all of them, may do. Each replica counts by itself."""

    creates: Rate = Field("10/minute", description="creates of one caller, as a rate")
    previews: Rate = Field("30/minute", description="previews of one caller, as a rate")
    requests: Rate = Field("6000/minute", description="other requests of one caller, as a rate")
    batched: Rate = Field("1000/minute", description="tasks of the batches of one caller, as a rate")
    failures: Rate = Field("60/minute", description="tokens that nobody knows, from one address, as a rate")
    streams: int = Field(20, ge=1, description="streams of logs that one caller reads at a time")
    body_kib: int = Field(1024, ge=1, description="largest body of a request, KiB")
    header_seconds: float = Field(10, gt=0, description="time for the head and body of a request")
    write_seconds: float = Field(30, gt=0, description="for which a client may leave unread what it was sent")
    idle_seconds: float = Field(60, gt=0, description="time between two requests of a connection")
    connections: int = Field(4096, ge=1, description="connections of all addresses")
    connections_per_peer: int = Field(2048, ge=1, description="connections of one address")


class Settings(Section):
    """All settings of the gateway."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104  reached through its Service
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    health_port: int = Field(8081, ge=0, le=65535, description="port of probes and metrics")
    tls_certificate: Path | None = Field(None, description="file of the certificate chain; none: plain HTTP")
    tls_key: Path | None = Field(None, description="file of its private key")
    kubeconfig: str = Field("", description="file with credentials; empty: those of the pod, else KUBECONFIG")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    environment: str = Field("production", description="the word that /api/v1/info shows")
    language: Literal["en", "zh"] = Field("en", description="language of messages without Accept-Language: en or zh")
    default_namespace: Namespace = Field(
        "", description="namespace of callers that name none; empty: that of their service account"
    )
    roots: tuple[Root, ...] = Field((), description="folders that paths may be below, as [{path: /data, uri: pvc://x}]")
    outputs: tuple[Output, ...] = Field(
        (), description="mounted outputs, as [{uri: pvc://x, namespace: team-a, path: /mnt/x}], for logs of ended tasks"
    )
    pool: str = Field("default", description="GPUPool of the tasks, and of /api/v2/resources")
    weights_cache: str = Field("", description="URI of the folder with the ImageNet weights; empty: there is none")
    results: str = Field(
        "", description="URI of the folder for results of inferences that name none; empty: beside what they read"
    )
    resources: dict[str, Any] = Field(default_factory=dict, description="spec.resources of every task, but for gpus")
    trainer_image: str = Field("", description="image of the trainer, for preparations of data; empty: there are none")
    keep_preparations_seconds: int = Field(
        604_800, ge=0, description="how long a preparation that has ended can be asked for"
    )
    cluster_assigns_users: bool = Field(
        default=False, description="whether pods of preparations name no user or group; for clusters that assign them"
    )
    prometheus_url: Annotated[str, AfterValidator(_http)] = Field(
        "",
        alias="prometheusURL",
        validation_alias=AliasChoices("prometheusURL", "prometheusUrl"),  # a variable has no capitals
        description="Prometheus that scrapes the operator, for /api/v2/usage; empty: hours are those of the jobs",
    )
    cors_origins: tuple[str, ...] = Field((), description="origins whose pages may call, as in https://ui.example.org")
    insecure_cookies: bool = Field(
        default=False, description="whether the page may keep tokens without TLS, where others can read them"
    )
    drain_seconds: float = Field(5, ge=0, description="time between not ready and the end of listening")
    callbacks: Callbacks = Callbacks()
    compat: Compat = Compat()
    proxy: Proxy = Proxy()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("write both of tlsCertificate and tlsKey, or neither")
        if self.compat.enabled and self.proxy.addresses:
            raise ValueError("compat answers without credentials: disable it, or remove proxy.addresses")
        paths = [root.path for root in self.roots]
        if len(set(paths)) != len(paths):
            raise ValueError("roots: a path is listed twice")
        return self


def load(path: Path | None = None, *, env: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Read the file, then `RFUAV_GATEWAY__*` of `env` (default: the process's), then `NAME=VALUE` overrides.

    Raises:
        SettingsError: names the setting and the problem.
    """
    env = os.environ if env is None else env
    return configuration.validated(Settings, configuration.tree(PREFIX, path, env=env, overrides=overrides))
